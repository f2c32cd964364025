"""The loop in chunks, of which only the last states live from forward to backward: the rest is computed again."""

from typing import Any, cast

import torch
from torch import Tensor

from ssp_kernels.gradients import needs_grad
from ssp_kernels.nonlinear_loop import reference
from ssp_kernels.nonlinear_loop.reference import Cell, Tensors, step

__all__ = ["forward", "step"]

CHUNK = 32


def forward(
    cell: Cell, sequences: Tensors, fixed: Tensors, states: Tensors, valid_BL: Tensor | None
) -> tuple[Tensor, Tensors]:
    length = sequences[0].shape[1]
    if length == 0 or not needs_grad(*sequences, *fixed, *states):
        return reference.forward(cell, sequences, fixed, states, valid_BL)
    outputs = []
    for start in range(0, length, CHUNK):
        part = tuple(sequence[:, start : start + CHUNK] for sequence in sequences)
        valid_BT = None if valid_BL is None else valid_BL[:, start : start + CHUNK]
        counts = len(sequences), len(fixed)
        results = cast(Tensors, _Chunk.apply(cell, counts, valid_BT, *part, *fixed, *states))  # type: ignore[no-untyped-call]  # torch's
        outputs.append(results[0])
        states = results[1:]
    return torch.cat(outputs, dim=1), states


class _Chunk(torch.autograd.Function):
    """Takes sequences, fixed tensors and states, as many as `counts` says, and the rest."""

    @staticmethod
    def forward(ctx: Any, cell: Cell, counts: tuple[int, int], valid_BT: Tensor | None, *tensors: Tensor) -> Tensors:
        ctx.arguments = cell, counts, valid_BT
        ctx.save_for_backward(*tensors)
        return _chunk(cell, counts, valid_BT, tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cell, counts, valid_BT = ctx.arguments
        again = torch.is_grad_enabled()  # gradients of gradients are wanted
        with torch.enable_grad():
            tensors = tuple(tensor.view_as(tensor) for tensor in ctx.saved_tensors)  # each apart from what it came from
            results = _chunk(cell, counts, valid_BT, tensors)
        wanted = [tensor for tensor in tensors if tensor.requires_grad]
        found = iter(torch.autograd.grad(results, wanted, grads, allow_unused=True, create_graph=again))
        return None, None, None, *(next(found) if tensor.requires_grad else None for tensor in tensors)


def _chunk(cell: Cell, counts: tuple[int, int], valid_BT: Tensor | None, tensors: Tensors) -> Tensors:
    first, second = counts[0], sum(counts)
    y, states = reference.forward(cell, tensors[:first], tensors[first:second], tensors[second:], valid_BT)
    return y, *states
