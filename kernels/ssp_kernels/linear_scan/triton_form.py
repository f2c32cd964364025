"""`linear_scan` in Triton for GPUs, float32 and float64, real and complex.

One program runs a group of features of one row, their state in registers while the tokens pass by. A step is a scan of
one token. Gradients are a second run of the same kernel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssp_kernels import triton_support
from ssp_kernels.gradients import needs_grad
from ssp_kernels.linear_scan import torch_form
from ssp_kernels.linear_scan.differentiable import scanned

_FEATURES = 64  # of a program


def check() -> None:
    """Raises `Unavailable` with the reason where the kernel cannot run."""
    triton_support.check(lambda one: _scan(one.view(1, 1, 1), one.view(1, 1, 1), one.view(1, 1)))


def forward(b_BLD: Tensor, a_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]:
    if not triton_support.supported(b_BLD, a_BLD, state_BD):
        return torch_form.forward(b_BLD, a_BLD, state_BD)
    return scanned(_scan, b_BLD, a_BLD, state_BD)


def step(b_BD: Tensor, a_BD: Tensor, state_BD: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    if needs_grad(b_BD, a_BD, state_BD) or not triton_support.supported(b_BD, a_BD, state_BD):
        return torch_form.step(b_BD, a_BD, state_BD, out)
    new = torch.empty_like(state_BD, memory_format=torch.contiguous_format) if out is None else out
    return _launch(b_BD[:, None], a_BD[:, None], state_BD, new)[:, 0], new


def _scan(b: Tensor, a: Tensor, state: Tensor) -> Tensor:
    """Of real or complex tensors, as `differentiable.Scan`."""
    if not b.is_complex():
        return _launch(b, a, state, torch.empty_like(state))
    b, a, state = (torch.view_as_real(t) for t in (b, a, state))
    return torch.view_as_complex(_launch(b, a, state, torch.empty_like(state)))


def _launch(b: Tensor, a: Tensor, state: Tensor, new: Tensor) -> Tensor:
    """h of real tensors or pairs. The last state is written to `new`, which like `state` may be strided."""
    assert a.shape == b.shape and (new.shape, new.dtype) == (state.shape, state.dtype)
    b, a = b.contiguous(), a.contiguous()
    h = torch.empty_like(b)
    batch, length, features = b.shape[:3]
    is_complex = b.ndim == 4
    pair = (0,) if not is_complex else ()
    with triton_support.on_device_of(b):
        _scan_kernel[(batch, triton.cdiv(features, _FEATURES))](
            b, a, h, state, *state.stride(), *pair, new, *new.stride(), *pair,
            L=length, D=features, COMPLEX=is_complex, FEATURES=_FEATURES, num_warps=1, enable_fp_fusion=True,
        )  # fmt: skip
    return h


@triton.jit(do_not_specialize=["L"])  # type: ignore[untyped-decorator]  # triton has no types
def _scan_kernel(
    b: tl.tensor,
    a: tl.tensor,
    h: tl.tensor,
    initial: tl.tensor,
    initial_stride_b: tl.tensor,
    initial_stride_d: tl.tensor,
    initial_stride_pair: tl.tensor,
    final: tl.tensor,
    final_stride_b: tl.tensor,
    final_stride_d: tl.tensor,
    final_stride_pair: tl.tensor,
    L: tl.tensor,
    D: tl.tensor,
    COMPLEX: tl.constexpr,
    FEATURES: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    exists = d < D
    numbers: tl.constexpr = 2 if COMPLEX else 1
    from_d = initial + row * initial_stride_b + d * initial_stride_d
    to_d = final + row * final_stride_b + d * final_stride_d
    re_d = tl.load(from_d, mask=exists, other=0.0)
    im_d = tl.load(from_d + initial_stride_pair, mask=exists, other=0.0)  # in a real scan the same, and unused
    for t in range(L):
        at_d = ((row * L + t) * D + d) * numbers
        a_re_d = tl.load(a + at_d, mask=exists, other=0.0)
        b_re_d = tl.load(b + at_d, mask=exists, other=0.0)
        if COMPLEX:
            a_im_d = tl.load(a + at_d + 1, mask=exists, other=0.0)
            b_im_d = tl.load(b + at_d + 1, mask=exists, other=0.0)
            turned_d = a_re_d * im_d + a_im_d * re_d
            re_d = a_re_d * re_d - a_im_d * im_d + b_re_d
            im_d = turned_d + b_im_d
            tl.store(h + at_d + 1, im_d, mask=exists)
        else:
            re_d = a_re_d * re_d + b_re_d
        tl.store(h + at_d, re_d, mask=exists)
    tl.store(to_d, re_d, mask=exists)
    if COMPLEX:
        tl.store(to_d + final_stride_pair, im_d, mask=exists)
