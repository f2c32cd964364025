"""Recurrences with their state inside a nonlinearity, which only a loop over the tokens computes. Each is a `Cell`."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ssp_kernels.nonlinear_loop import reference, torch_form
from ssp_kernels.nonlinear_loop.reference import Cell, Tensors
from ssp_kernels.padding import masked, valid_tokens
from ssp_kernels.registry import Operator


class NonlinearLoopForm(Protocol):
    def forward(
        self, cell: Cell, sequences: Tensors, fixed: Tensors, states: Tensors, valid_BL: Tensor | None
    ) -> tuple[Tensor, Tensors]: ...
    def step(self, cell: Cell, tensors: Tensors, states: Tensors, out: Tensors | None) -> tuple[Tensor, Tensors]: ...


OPERATOR: Operator[NonlinearLoopForm] = Operator(
    "nonlinear_loop", {"reference": lambda: reference, "torch": lambda: torch_form}
)


@dataclass(frozen=True)
class NonlinearLoop:
    """`y_t, state_t = cell(*tensors_t, *state_{t-1})`. The first `num_sequences` of the tensors have tokens, the others
    are the same for each. A state is a tensor or a tuple of tensors, as many as the cell has."""

    cell: Cell
    num_sequences: int = 1

    def forward(self, *arguments: Any) -> tuple[Tensor, Any]:
        """From `(*tensors, state, lengths_B)`: sequences (B, L, ...), fixed tensors, a state (B, ...), and the valid
        tokens of each row (B,) or None for all. What follows them leaves the state alone; L may be 0.

        Returns:
            Outputs (B, L, ...) and the state after each row's last valid token. Training keeps one state per chunk.
        """
        *tensors, state, lengths_B = arguments
        sequences = tuple(masked(tensor, lengths_B) for tensor in tensors[: self.num_sequences])
        valid_BL = None if lengths_B is None else valid_tokens(sequences[0].shape[1], lengths_B)
        fixed, form = tuple(tensors[self.num_sequences :]), OPERATOR.pick(sequences[0])
        y, states = form.forward(self.cell, sequences, fixed, _unpacked(state), valid_BL)
        return y, _packed_as(state, states)

    def step(self, *arguments: Any) -> tuple[Tensor, Any]:
        """One token of `forward`, from `(*tensors, state, out)`. The new state is written to `out` if that is not None;
        it may be the state itself."""
        *tensors, state, out = arguments
        form = OPERATOR.pick(tensors[0])
        y, states = form.step(self.cell, tuple(tensors), _unpacked(state), None if out is None else _unpacked(out))
        return y, _packed_as(state, states)


def _unpacked(state: Tensor | Tensors) -> Tensors:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def _packed_as(like: Tensor | Tensors, states: Tensors) -> Tensor | Tensors:
    return states[0] if isinstance(like, Tensor) else states
