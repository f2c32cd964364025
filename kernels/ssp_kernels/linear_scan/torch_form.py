"""`linear_scan` in blocks that advance side by side.

Factors are only ever multiplied, never divided and never turned into logarithms, so that any of them may be 0.
Gradients are a scan of their own that runs backwards; nothing but factors and results is kept for it.
"""

from typing import Any, cast

import torch
from torch import Tensor

from ssp_kernels.blocked_scan import blocked_scan
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
        h = blocked_scan(b, a, state, plus=torch.add, times=torch.mul)
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
