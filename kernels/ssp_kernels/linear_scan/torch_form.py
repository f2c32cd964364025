"""`linear_scan` in blocks of about sqrt(L) tokens that advance side by side, then are told what came before them.

Factors are only ever multiplied, never divided and never turned into logarithms, so that any of them may be 0.
Gradients are a scan of their own that runs backwards; nothing but factors and results is kept for it.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor

from ssp_kernels.linear_scan.reference import step

__all__ = ["forward", "step"]


def forward(b_BLD: Tensor, a_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]:
    if b_BLD.numel() == 0:
        return torch.zeros_like(b_BLD), state_BD.clone()
    if b_BLD.ndim == 4:
        h_BLD = torch.view_as_real(_scan(*(torch.view_as_complex(t.contiguous()) for t in (b_BLD, a_BLD, state_BD))))
    else:
        h_BLD = _scan(b_BLD, a_BLD, state_BD)
    return h_BLD, h_BLD[:, -1].clone()


def _scan(b: Tensor, a: Tensor, state: Tensor) -> Tensor:
    return cast(Tensor, _Scan.apply(b, a, state))  # type: ignore[no-untyped-call]  # torch's


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, b: Tensor, a: Tensor, state: Tensor) -> Tensor:
        h = _scan_in_blocks(b, a, state)
        ctx.save_for_backward(a, state, h)
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        a, state, h = ctx.saved_tensors
        (gh,) = grads
        # What h_t is worth: its own gradient, and through h_{t+1} that of everything after it.
        after = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1).conj()
        g = _scan(gh.flip(1), after.flip(1).resolve_conj(), torch.zeros_like(state)).flip(1)
        before = torch.cat([state[:, None], h[:, :-1]], dim=1)
        return g, g * before.conj(), g[:, 0] * a[:, 0].conj()


def _scan_in_blocks(b: Tensor, a: Tensor, state: Tensor) -> Tensor:
    length = b.shape[1]
    size = math.isqrt(length - 1) + 1
    h, decay = _blocks(b, size), _blocks(a, size)  # (B, blocks, size, D), copies
    for t in range(1, size):
        h[:, :, t] += decay[:, :, t] * h[:, :, t - 1]
        decay[:, :, t] *= decay[:, :, t - 1]
    for i in range(h.shape[1]):
        h[:, i] += decay[:, i] * state[:, None]
        state = h[:, i, -1]
    return h.flatten(1, 2)[:, :length]


def _blocks(x: Tensor, size: int) -> Tensor:
    """A copy (B, blocks, size, D), filled up with zeros."""
    count = -(-x.shape[1] // size)
    blocks = x.new_zeros(len(x), count * size, *x.shape[2:])
    blocks[:, : x.shape[1]] = x
    return blocks.view(len(x), count, size, *x.shape[2:])
