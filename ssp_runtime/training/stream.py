"""Sequences far longer than what is learnt from at once."""

from collections.abc import Iterator

from torch import Tensor

from ssp_runtime.models.model import CausalModel
from ssp_runtime.resets import forward_with_resets
from ssp_runtime.state import State

PIECE = 2048  # steps of a row that are scored at once


class Stream:
    """Inputs and their targets (T, ...), read by `batch_size` rows side by side, `length` steps at a time.

    Each row goes on where it stopped, its state carried over (gradients stop at the cut): the model learns to use a
    state far older than `length` steps, as it will have when served. A step marked in `begins_T` finds the initial
    state instead.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, begins_T: Tensor, *, batch_size: int, length: int) -> None:
        if len(inputs) < batch_size * length:
            raise ValueError(f"{len(inputs)} steps are too few for {batch_size} rows of {length}: lower one of them")
        self._rows = [_side_by_side(tensor, batch_size) for tensor in (inputs, targets, begins_T)]
        self._length, self._at = length, 0
        self._state: State | None = None

    def advance(self, model: CausalModel) -> tuple[Tensor, Tensor]:
        """Outputs for the next steps, and their targets (B, L, ...). At the end it starts again."""
        if self._at + self._length > self._rows[0].shape[1]:
            self._at, self._state = 0, None
        inputs, targets, begins_BL = (rows[:, self._at : self._at + self._length] for rows in self._rows)
        state = model.initial_state(len(inputs)) if self._state is None else self._state
        outputs, state = forward_with_resets(model, inputs, state, begins_BL)
        self._state = {name: tensor.detach() for name, tensor in state.items()}
        self._at += self._length
        return outputs, targets

    def state_dict(self) -> dict[str, object]:
        return {"at": self._at, "state": self._state}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._at, self._state = state["at"], state["state"]  # type: ignore[assignment]


def _side_by_side(tensor: Tensor, rows: int) -> Tensor:
    return tensor[: len(tensor) // rows * rows].reshape(rows, -1, *tensor.shape[1:])


def outputs_in_pieces(model: CausalModel, inputs: Tensor, lengths_B: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Outputs for whole sequences (B, L, ...), longest first: steps of a piece, how many each row has there, outputs.

    Rows that have ended drop out.
    """
    state = model.initial_state(len(inputs))
    for start in range(0, inputs.shape[1], PIECE):
        piece, rows = slice(start, start + PIECE), int((lengths_B > start).sum())
        left_B = (lengths_B[:rows] - start).clamp(max=PIECE)
        state = {name: tensor[:rows] for name, tensor in state.items()}
        outputs, state = model(inputs[:rows, piece], state, lengths_B=left_B)
        yield piece, left_B, outputs
