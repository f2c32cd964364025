"""Sequences chunk by chunk, with a state carried from one to the next."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssp_kernels.gradients import recomputed


def in_chunks(
    chunk: Callable[..., tuple[Tensor, Tensor]],
    sequences: Sequence[Tensor],
    fixed: Sequence[Tensor | None],
    state: Tensor,
    *,
    size: int,
    dim: int = 1,
) -> tuple[Tensor, Tensor]:
    """Outputs and the last state of `y, state = chunk(*tokens, *fixed, state)`, over `size` tokens of each sequence at
    a time; time is their dimension `dim`, and at least one token long.

    Only the states at chunk ends live from forward to backward; what lies between is computed again.
    """
    outputs = []
    for tokens in zip(*(torch.split(sequence, size, dim) for sequence in sequences), strict=True):
        y, state = recomputed(chunk, *tokens, *fixed, state)
        outputs.append(y)
    return torch.cat(outputs, dim), state
