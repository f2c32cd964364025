"""`selective_scan` in C++ for CPUs, float32 and float64; see `native_form.cpp`."""

import ctypes
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssp_kernels import native
from ssp_kernels.gradients import needs_grad
from ssp_kernels.selective_scan import torch_form
from ssp_kernels.selective_scan.arguments import consistent

_SOURCE = Path(__file__).with_suffix(".cpp")
_SEGMENT = 32  # kSegment of the C++ file
_GROUP = 16  # kGroup


def library() -> ctypes.CDLL:
    """Raises `Unavailable` where it cannot be compiled."""
    return native.load(_SOURCE)


def forward(
    x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, state_BDN: Tensor
) -> tuple[Tensor, Tensor]:
    arguments = (x_BLD, dt_BLD, A_DN, B_BLN, C_BLN, state_BDN)
    if not native.supported(*arguments):
        return torch_form.forward(*arguments)
    assert consistent(*arguments)
    x, dt, A, B, C, state = (t.contiguous() for t in arguments)
    if needs_grad(*arguments):
        y, final = cast(tuple[Tensor, Tensor], _Scan.apply(x, dt, A, B, C, state))  # type: ignore[no-untyped-call]  # torch's
        return y, final
    return _run_forward(x, dt, A, B, C, state, kept=None)


def step(
    x_BD: Tensor, dt_BD: Tensor, A_DN: Tensor, B_BN: Tensor, C_BN: Tensor, state_BDN: Tensor, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    arguments = (x_BD, dt_BD, A_DN, B_BN, C_BN, state_BDN)
    if needs_grad(*arguments) or not native.supported(*arguments):
        return torch_form.step(*arguments, out)
    assert consistent(*arguments)
    x, dt, A, B, C = (t.contiguous() for t in arguments[:-1])
    state = native.rows_contiguous(state_BDN)
    new = torch.empty_like(state, memory_format=torch.contiguous_format) if out is None else native.rows_contiguous(out)
    assert (new.shape, new.dtype) == (state.shape, state.dtype)
    y = torch.empty_like(x)
    rows = (state, state.stride(0), new, new.stride(0))
    native.call(library(), "step", x, *state.shape, x, dt, A, B, C, *rows, y)
    return y, new if out is None or new is out else out.copy_(new)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        batch, length, features = x.shape
        kept = x.new_empty(batch, -(-length // _SEGMENT), features, A.shape[1])
        ctx.save_for_backward(x, dt, A, B, C, kept)
        return _run_forward(x, dt, A, B, C, state, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        x, dt, A, B, C, kept = ctx.saved_tensors
        gy, gfinal = (g.contiguous() for g in grads)
        (batch, length, features), states = x.shape, A.shape[1]
        gx, gdt, ginitial = torch.empty_like(x), torch.empty_like(x), torch.empty_like(gfinal)
        gA = x.new_zeros(batch, features, states)
        gB, gC = x.new_zeros(2, -(-features // _GROUP), batch, length, states)
        outputs = (gx, gdt, gA, gB, gC, ginitial)
        sizes = (batch, length, features, states)
        native.call(library(), "backward", x, *sizes, x, dt, A, B, C, kept, gy, gfinal, *outputs)
        return gx, gdt, gA.sum(0), gB.sum(0), gC.sum(0), ginitial


def _run_forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    y, final = torch.empty_like(x), torch.empty_like(state)
    native.call(library(), "forward", x, *x.shape, A.shape[1], x, dt, A, B, C, state, y, final, kept)
    return y, final
