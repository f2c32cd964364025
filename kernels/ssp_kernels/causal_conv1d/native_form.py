"""`causal_conv1d` in C++ for CPUs, float32 and float64; see `native_form.cpp`."""

import ctypes
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssp_kernels import native
from ssp_kernels.causal_conv1d import torch_form
from ssp_kernels.gradients import needs_grad

_SOURCE = Path(__file__).with_suffix(".cpp")


def library() -> ctypes.CDLL:
    """Raises `Unavailable` where it cannot be compiled."""
    return native.load(_SOURCE)


def forward(
    x_BLD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, lengths_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    if not native.supported(x_BLD, weight_DK, bias_D, state_BDK):
        return torch_form.forward(x_BLD, weight_DK, bias_D, state_BDK, lengths_B)
    assert _consistent(x_BLD, weight_DK, bias_D, state_BDK)
    before_BKD, bias = state_BDK.transpose(1, 2).contiguous(), None if bias_D is None else bias_D.contiguous()
    arguments = (x_BLD.contiguous(), before_BKD, weight_DK.t().contiguous(), bias)
    y_BLD = cast(Tensor, _Convolution.apply(*arguments))  # type: ignore[no-untyped-call]  # torch's
    return y_BLD, torch_form.last_inputs(x_BLD, state_BDK, lengths_B)


def step(
    x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    tensors = (x_BD, weight_DK, bias_D, state_BDK)
    if needs_grad(*tensors) or not native.supported(*tensors):
        return torch_form.step(*tensors, out)
    assert _consistent(*tensors)
    x, bias = x_BD.contiguous(), None if bias_D is None else bias_D.contiguous()
    state = native.rows_contiguous(state_BDK)
    new = torch.empty_like(state, memory_format=torch.contiguous_format) if out is None else native.rows_contiguous(out)
    assert (new.shape, new.dtype) == (state.shape, state.dtype)
    y = torch.empty_like(x)
    rows = (state, state.stride(0), new, new.stride(0))
    weights_KD = weight_DK.t().contiguous()
    native.call(library(), "step", x, *x.shape, len(weights_KD), x, weights_KD, bias, *rows, y)
    return y, new if out is None or new is out else out.copy_(new)


def _consistent(x: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor) -> bool:
    """Whether the shapes fit each other, for a whole sequence (B, L, D) or for one token (B, D)."""
    features, taps = weight_DK.shape
    fitting = x.shape[-1] == features and state_BDK.shape == (len(x), features, taps - 1)
    return fitting and (bias_D is None or bias_D.shape == (features,))


class _Convolution(torch.autograd.Function):
    """Of x (B, L, D), the inputs before it (B, K - 1, D), weights (K, D) and a bias (D,) or None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, before, weights)
        y = torch.empty_like(x)
        native.call(library(), "forward", x, *x.shape, len(weights), x, before, weights, bias, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, before, weights = ctx.saved_tensors
        gy = grads[0].contiguous()
        gx, gbefore = torch.zeros_like(x), torch.zeros_like(before)
        gweights = x.new_zeros(len(x), *weights.shape)
        sizes = (*x.shape, len(weights))
        native.call(library(), "backward", x, *sizes, x, before, weights, gy, gx, gbefore, gweights)
        return gx, gbefore, gweights.sum(0), gy.sum((0, 1)) if ctx.needs_input_grad[3] else None
