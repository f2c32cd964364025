"""Complex modes between dense matrices, in real arithmetic: `h_t = Lambda h_{t-1} + B x_t`, `y_t = Re(C h_t)`.

A mode is a pair of reals, so that B and C become real matrices twice as high and twice as wide.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_kernels import linear_scan
from ssp_runtime.run import Run


def in_reals(Lambda_N: Tensor, B_ND: Tensor, C_DN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three complex coefficients as `advance` takes them: (N, 2), (2N, D) and (D, 2N)."""
    B_real = torch.view_as_real(B_ND).transpose(1, 2).flatten(0, 1)
    C_real = torch.stack([C_DN.real, -C_DN.imag], dim=-1).flatten(1, 2)
    return torch.view_as_real(Lambda_N), B_real, C_real


def advance(run: Run, x: Tensor, Lambda_N2: Tensor, B_real: Tensor, C_real: Tensor, *, state: str) -> Tensor:
    """Outputs (..., D) of inputs (..., D). The state of that name has the shape (N, 2)."""
    b = F.linear(x.to(B_real.dtype), B_real).reshape(*x.shape[:-1], *Lambda_N2.shape)
    h = run(linear_scan, b, Lambda_N2, state=state)
    return F.linear(h.flatten(-2), C_real).to(x.dtype)
