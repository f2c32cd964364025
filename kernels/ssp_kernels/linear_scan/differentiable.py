"""Gradients for any form of `linear_scan`: they are a scan of the same kind that runs backwards."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

# h (B, L, D) of b, a (B, L, D) and a state (B, D), all real or all complex; at least one token.
Scan = Callable[[Tensor, Tensor, Tensor], Tensor]


def scanned(scan: Scan, b_BLD: Tensor, a_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]:
    """What a form's `forward` returns, of real numbers or pairs; only factors and results are kept for gradients."""
    if b_BLD.numel() == 0:
        return torch.zeros_like(b_BLD), state_BD.clone()
    if b_BLD.ndim == 4:
        b, a, state = (torch.view_as_complex(t.contiguous()) for t in (b_BLD, a_BLD, state_BD))
        h_BLD = torch.view_as_real(_differentiable(b, a, state, scan))
    else:
        h_BLD = _differentiable(b_BLD, a_BLD, state_BD, scan)
    return h_BLD, h_BLD[:, -1].clone()


def _differentiable(b: Tensor, a: Tensor, state: Tensor, scan: Scan) -> Tensor:
    return cast(Tensor, _Scan.apply(b, a, state, scan))  # type: ignore[no-untyped-call]  # torch's


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, b: Tensor, a: Tensor, state: Tensor, scan: Scan) -> Tensor:
        h = scan(b, a, state)
        ctx.save_for_backward(a, state, h)
        ctx.scan = scan
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, state, h = ctx.saved_tensors
        # What h_t is worth: its own gradient, and through h_{t+1} that of everything after it.
        after = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1).conj().resolve_conj()
        g = _differentiable(grads[0].flip(1), after.flip(1), torch.zeros_like(state), ctx.scan).flip(1)
        before = torch.cat([state[:, None], h[:, :-1]], dim=1)
        return g, g * before.conj(), g[:, 0] * a[:, 0].conj(), None
