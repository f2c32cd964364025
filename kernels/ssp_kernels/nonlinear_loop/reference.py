"""The loop that defines every `NonlinearLoop`."""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
# One token of each sequence, the fixed tensors and the states (B, ...), to its outputs (B, ...) and the new states.
Cell = Callable[..., tuple[Tensor, Tensors]]


def forward(
    cell: Cell, sequences: Tensors, fixed: Tensors, states: Tensors, valid_BL: Tensor | None
) -> tuple[Tensor, Tensors]:
    outputs = []
    for t in range(sequences[0].shape[1]):
        y, new = cell(*(sequence[:, t] for sequence in sequences), *fixed, *states)
        states = new if valid_BL is None else _where(valid_BL[:, t], new, states)
        outputs.append(y)
    y_BL = torch.stack(outputs, dim=1) if outputs else _no_outputs(cell, sequences, fixed, states)
    return y_BL, tuple(state.clone() for state in states)


def step(cell: Cell, tensors: Tensors, states: Tensors, out: Tensors | None) -> tuple[Tensor, Tensors]:
    y, new = cell(*tensors, *states)
    if out is None:
        return y, tuple(state.clone() for state in new)
    return y, tuple(place.copy_(state) for place, state in zip(out, new, strict=True))


def _where(valid_B: Tensor, new: Tensors, old: Tensors) -> Tensors:
    return tuple(
        torch.where(valid_B.view(-1, *[1] * (after.ndim - 1)), after, before)
        for after, before in zip(new, old, strict=True)
    )


def _no_outputs(cell: Cell, sequences: Tensors, fixed: Tensors, states: Tensors) -> Tensor:
    """Of no tokens; the shape of one's outputs is known to the cell alone."""
    y, _ = cell(*(sequence.new_zeros(len(sequence), *sequence.shape[2:]) for sequence in sequences), *fixed, *states)
    return y.new_zeros(len(y), 0, *y.shape[1:])
