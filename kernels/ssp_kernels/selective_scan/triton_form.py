"""`selective_scan` in Triton for GPUs, float32 and float64.

One program runs a group of features of one row: their state stays in registers while the tokens pass by. For gradients
the forward pass keeps the state before each segment of tokens; the backward pass takes the segments from last to first,
runs each again from its kept state, and walks back over it. Between the two it puts one segment's states aside, in
memory that does not grow with L. Gradients that sum over features or rows come as one part per program and are added up
afterwards, in a fixed order.
"""

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssp_kernels import triton_support
from ssp_kernels.gradients import needs_grad
from ssp_kernels.selective_scan import torch_form
from ssp_kernels.selective_scan.arguments import consistent

_SEGMENT = 32  # tokens between two kept states


def check() -> None:
    """Raises `Unavailable` with the reason where the kernels cannot run."""

    def launch(one: Tensor) -> object:
        sequence = one.view(1, 1, 1)
        return forward(sequence, sequence, one.view(1, 1), sequence, sequence, sequence)

    triton_support.check(launch)


def forward(
    x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, state_BDN: Tensor
) -> tuple[Tensor, Tensor]:
    arguments = (x_BLD, dt_BLD, A_DN, B_BLN, C_BLN, state_BDN)
    if not triton_support.supported(*arguments):
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
    if needs_grad(*arguments) or not triton_support.supported(*arguments):
        return torch_form.step(*arguments, out)
    assert consistent(*arguments)
    x, dt, A, B, C = (t.contiguous() for t in arguments[:-1])
    new = torch.empty_like(state_BDN, memory_format=torch.contiguous_format) if out is None else out
    assert (new.shape, new.dtype) == (state_BDN.shape, state_BDN.dtype)
    y = torch.empty_like(x)
    batch, features, states = state_BDN.shape
    tile = _tile(states, features=16, warps=1)
    with triton_support.on_device_of(x):
        _step_kernel[(batch, triton.cdiv(features, tile["FEATURES"]))](
            x, dt, A, B, C, state_BDN, *state_BDN.stride(), new, *new.stride(), y,
            D=features, N=states, **tile,
        )  # fmt: skip
    return y, new


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        batch, length, features = x.shape
        kept = x.new_empty(batch, triton.cdiv(length, _SEGMENT), features, A.shape[1])
        ctx.save_for_backward(x, dt, A, B, C, kept)
        return _run_forward(x, dt, A, B, C, state, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return _run_backward(*ctx.saved_tensors, *(g.contiguous() for g in grads))


def _run_forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    (batch, length, features), states = x.shape, A.shape[1]
    y, final = torch.empty_like(x), torch.empty_like(state)
    tile = _tile(states, features=16, warps=1)
    with triton_support.on_device_of(x):
        _forward_kernel[(batch, triton.cdiv(features, tile["FEATURES"]))](
            x, dt, A, B, C, state, y, final, y if kept is None else kept,
            L=length, D=features, N=states, **tile, SEGMENT=_SEGMENT, KEEP=kept is not None,
        )  # fmt: skip
    return y, final


def _run_backward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, kept: Tensor, gy: Tensor, gfinal: Tensor
) -> tuple[Tensor, ...]:
    (batch, length, features), states = x.shape, A.shape[1]
    tile = _tile(states, features=32, warps=4)
    groups = triton.cdiv(features, tile["FEATURES"])
    aside = x.new_empty(batch, groups, _SEGMENT, tile["FEATURES"], tile["STATES"])
    gx, gdt, ginitial = torch.empty_like(x), torch.empty_like(x), torch.empty_like(gfinal)
    gA = x.new_empty(batch, features, states)
    gB, gC = x.new_empty(2, groups, batch, length, states)
    with triton_support.on_device_of(x):
        _backward_kernel[(batch, groups)](
            x, dt, A, B, C, kept, gy, gfinal, aside, gx, gdt, gA, gB, gC, ginitial,
            L=length, D=features, N=states, **tile, SEGMENT=_SEGMENT,
        )  # fmt: skip
    return gx, gdt, gA.sum(0), gB.sum(0), gC.sum(0), ginitial


def _tile(states: int, features: int, warps: int) -> dict[str, int]:
    """How a program is cut: its tile of (features, states), both powers of two, at most 16 elements to a thread."""
    padded = triton.next_power_of_2(states)
    fitting = max(1, min(features, 512 * warps // padded))
    return {"FEATURES": fitting, "STATES": padded, "num_warps": warps, "enable_fp_fusion": True}


# In the kernels, d and n are the features and the states of a program's tile, and a name's suffix is the layout of the
# offsets or values it holds. Everything is contiguous but the states of a step. Rows are counted in 64 bits, since
# B L D may pass 2^31. Lanes beyond D or N hold zeros throughout.


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _tile_of(D: tl.tensor, N: tl.constexpr, FEATURES: tl.constexpr, STATES: tl.constexpr) -> tuple[tl.tensor, ...]:
    """The program's features and states, and which of them exist."""
    d = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    n = tl.arange(0, STATES)
    return d, n, d < D, n < N, (d < D)[:, None] & (n < N)[None, :]


@triton.jit(do_not_specialize=["L"])  # type: ignore[untyped-decorator]  # triton has no types
def _forward_kernel(
    x: tl.tensor,
    dt: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    initial: tl.tensor,
    y: tl.tensor,
    final: tl.tensor,
    kept: tl.tensor,
    L: tl.tensor,
    D: tl.tensor,
    N: tl.constexpr,
    FEATURES: tl.constexpr,
    STATES: tl.constexpr,
    SEGMENT: tl.constexpr,
    KEEP: tl.constexpr,
) -> None:
    b = tl.program_id(0).to(tl.int64)
    d, n, in_d, in_n, in_dn = _tile_of(D, N, FEATURES, STATES)
    at_dn = d[:, None] * N + n[None, :]
    A_dn = tl.load(A + at_dn, mask=in_dn, other=0.0)
    state_dn = tl.load(initial + b * D * N + at_dn, mask=in_dn, other=0.0)
    segments = tl.cdiv(L, SEGMENT)
    for segment in range(segments):
        if KEEP:
            tl.store(kept + (b * segments + segment) * D * N + at_dn, state_dn, mask=in_dn)
        for t in range(segment * SEGMENT, tl.minimum((segment + 1) * SEGMENT, L)):
            at_d, at_n = (b * L + t) * D + d, (b * L + t) * N + n
            x_d = tl.load(x + at_d, mask=in_d, other=0.0)
            dt_d = tl.load(dt + at_d, mask=in_d, other=0.0)
            B_n = tl.load(B + at_n, mask=in_n, other=0.0)
            C_n = tl.load(C + at_n, mask=in_n, other=0.0)
            state_dn = tl.exp(dt_d[:, None] * A_dn) * state_dn + (dt_d * x_d)[:, None] * B_n[None, :]
            tl.store(y + at_d, tl.sum(state_dn * C_n[None, :], axis=1), mask=in_d)
    tl.store(final + b * D * N + at_dn, state_dn, mask=in_dn)


@triton.jit(do_not_specialize=["L"])  # type: ignore[untyped-decorator]  # triton has no types
def _backward_kernel(
    x: tl.tensor,
    dt: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    kept: tl.tensor,
    gy: tl.tensor,
    gfinal: tl.tensor,
    aside: tl.tensor,
    gx: tl.tensor,
    gdt: tl.tensor,
    gA: tl.tensor,
    gB: tl.tensor,
    gC: tl.tensor,
    ginitial: tl.tensor,
    L: tl.tensor,
    D: tl.tensor,
    N: tl.constexpr,
    FEATURES: tl.constexpr,
    STATES: tl.constexpr,
    SEGMENT: tl.constexpr,
) -> None:
    b = tl.program_id(0).to(tl.int64)
    d, n, in_d, in_n, in_dn = _tile_of(D, N, FEATURES, STATES)
    at_dn = d[:, None] * N + n[None, :]
    tile_dn = tl.arange(0, FEATURES)[:, None] * STATES + n[None, :]
    aside += (b * tl.num_programs(1) + tl.program_id(1)) * SEGMENT * FEATURES * STATES
    gB += tl.program_id(1).to(tl.int64) * tl.num_programs(0) * L * N
    gC += tl.program_id(1).to(tl.int64) * tl.num_programs(0) * L * N
    A_dn = tl.load(A + at_dn, mask=in_dn, other=0.0)
    g_dn = tl.load(gfinal + b * D * N + at_dn, mask=in_dn, other=0.0)
    gA_dn = tl.zeros_like(A_dn)
    segments = tl.cdiv(L, SEGMENT)
    for done in range(segments):
        segment = segments - 1 - done
        start = segment * SEGMENT
        count = tl.minimum(SEGMENT, L - start)
        state_dn = tl.load(kept + (b * segments + segment) * D * N + at_dn, mask=in_dn, other=0.0)
        for i in range(count):
            tl.store(aside + i * FEATURES * STATES + tile_dn, state_dn)
            at_d, at_n = (b * L + start + i) * D + d, (b * L + start + i) * N + n
            x_d = tl.load(x + at_d, mask=in_d, other=0.0)
            dt_d = tl.load(dt + at_d, mask=in_d, other=0.0)
            B_n = tl.load(B + at_n, mask=in_n, other=0.0)
            state_dn = tl.exp(dt_d[:, None] * A_dn) * state_dn + (dt_d * x_d)[:, None] * B_n[None, :]
        tl.debug_barrier()  # what one thread put aside, another may read
        for j in range(count):
            i = count - 1 - j
            at_d, at_n = (b * L + start + i) * D + d, (b * L + start + i) * N + n
            x_d = tl.load(x + at_d, mask=in_d, other=0.0)
            dt_d = tl.load(dt + at_d, mask=in_d, other=0.0)
            gy_d = tl.load(gy + at_d, mask=in_d, other=0.0)
            B_n = tl.load(B + at_n, mask=in_n, other=0.0)
            C_n = tl.load(C + at_n, mask=in_n, other=0.0)
            before_dn = tl.load(aside + i * FEATURES * STATES + tile_dn)
            decay_dn = tl.exp(dt_d[:, None] * A_dn)
            after_dn = decay_dn * before_dn + (dt_d * x_d)[:, None] * B_n[None, :]
            total_dn = g_dn + gy_d[:, None] * C_n[None, :]
            g_dn = total_dn * decay_dn
            through_decay_dn = g_dn * before_dn
            through_B_d = tl.sum(total_dn * B_n[None, :], axis=1)
            gA_dn += through_decay_dn * dt_d[:, None]
            tl.store(gx + at_d, through_B_d * dt_d, mask=in_d)
            tl.store(gdt + at_d, through_B_d * x_d + tl.sum(through_decay_dn * A_dn, axis=1), mask=in_d)
            tl.store(gB + at_n, tl.sum(total_dn * (dt_d * x_d)[:, None], axis=0), mask=in_n)
            tl.store(gC + at_n, tl.sum(after_dn * gy_d[:, None], axis=0), mask=in_n)
        tl.debug_barrier()  # before the next segment's states take their place
    tl.store(gA + b * D * N + at_dn, gA_dn, mask=in_dn)
    tl.store(ginitial + b * D * N + at_dn, g_dn, mask=in_dn)


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _step_kernel(
    x: tl.tensor,
    dt: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    state: tl.tensor,
    state_stride_b: tl.tensor,
    state_stride_d: tl.tensor,
    state_stride_n: tl.tensor,
    new: tl.tensor,
    new_stride_b: tl.tensor,
    new_stride_d: tl.tensor,
    new_stride_n: tl.tensor,
    y: tl.tensor,
    D: tl.tensor,
    N: tl.constexpr,
    FEATURES: tl.constexpr,
    STATES: tl.constexpr,
) -> None:
    b = tl.program_id(0).to(tl.int64)
    d, n, in_d, in_n, in_dn = _tile_of(D, N, FEATURES, STATES)
    x_d = tl.load(x + b * D + d, mask=in_d, other=0.0)
    dt_d = tl.load(dt + b * D + d, mask=in_d, other=0.0)
    A_dn = tl.load(A + d[:, None] * N + n[None, :], mask=in_dn, other=0.0)
    B_n = tl.load(B + b * N + n, mask=in_n, other=0.0)
    C_n = tl.load(C + b * N + n, mask=in_n, other=0.0)
    from_dn = b * state_stride_b + d[:, None] * state_stride_d + n[None, :] * state_stride_n
    to_dn = b * new_stride_b + d[:, None] * new_stride_d + n[None, :] * new_stride_n
    state_dn = tl.load(state + from_dn, mask=in_dn, other=0.0)
    state_dn = tl.exp(dt_d[:, None] * A_dn) * state_dn + (dt_d * x_d)[:, None] * B_n[None, :]
    tl.store(new + to_dn, state_dn, mask=in_dn)
    tl.store(y + b * D + d, tl.sum(state_dn * C_n[None, :], axis=1), mask=in_d)
