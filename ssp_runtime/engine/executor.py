"""Runs a model on the rows of a state pool."""

from collections.abc import Sequence as Ids

import numpy as np
import torch
from torch import Tensor

from ssp_runtime.engine.call import Input
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.state_pool import StatePool
from ssp_runtime.models.model import CausalModel


class Executor:
    """`step` advances all running rows at once; `fold` and `outputs` one row by several inputs, in parallel form.

    With a `quantum` every step runs over a multiple of so many rows, the rest of which is scratch: matrix products over
    few rows and over many differ in their last bits.
    """

    def __init__(self, model: CausalModel, pool: StatePool, quantum: int = 1) -> None:
        self._model, self._pool, self._quantum = model, pool, quantum
        self._device = next(model.parameters()).device

    def step(self, inputs: Ids[Input]) -> Tensor:
        """Outputs (rows, V) of one input for every running row, in slot order."""
        count = len(inputs)
        rows = -(-count // self._quantum) * self._quantum
        if rows > count:
            inputs = [*inputs, *[inputs[0]] * (rows - count)]
        state = self._pool.first(rows)
        outputs_RV, _ = self._model.step(self._tensor(inputs), state, out=state)
        return outputs_RV[:count]

    def fold(self, sequence: Sequence, inputs: Ids[Input]) -> None:
        row = self._pool.row(sequence)
        self._write(row, self._model.fold(self._tensor(inputs)[None], row))

    def outputs(self, sequence: Sequence, inputs: Ids[Input]) -> Tensor:
        """Folds as well; outputs (L, V)."""
        row = self._pool.row(sequence)
        outputs_BLV, new = self._model(self._tensor(inputs)[None], row)
        self._write(row, new)
        return torch.as_tensor(outputs_BLV[0])

    def _write(self, row: dict[str, Tensor], new: dict[str, Tensor]) -> None:
        for name, tensor in new.items():
            row[name].copy_(tensor)

    def _tensor(self, inputs: Ids[Input]) -> Tensor:
        if isinstance(inputs[0], int):
            return torch.tensor(inputs, device=self._device)
        return torch.from_numpy(np.stack(inputs)).to(self._device)
