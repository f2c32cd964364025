"""`lti_ssm` as a long convolution by FFT, plus what the initial state still contributes, plus the final state.

Everything rests on sums of powers, `sum_n c_n a_n^t` for all t < L. They are built from two short tables, a^j and
(a^T)^i with t = i T + j and T about sqrt(L), so that nothing of size D x N x L ever exists. Powers come from repeated
multiplication, never from a logarithm: a decay of exactly 0 is as good as any, and they round as the recurrence does.
"""

import math

import torch
from torch import Tensor

from ssp_kernels.convolution import causal_convolution
from ssp_kernels.lti_ssm.reference import step
from ssp_kernels.padding import latest_first

__all__ = ["forward", "step"]


def forward(
    x_BLD: Tensor, Abar_DN2: Tensor, Bbar_DN2: Tensor, C_DN2: Tensor, state_BDN2: Tensor, lengths_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    length = x_BLD.shape[1]
    if x_BLD.numel() == 0:
        return torch.zeros_like(x_BLD), state_BDN2.clone()
    a, b, c, state = (torch.view_as_complex(pair.contiguous()) for pair in (Abar_DN2, Bbar_DN2, C_DN2, state_BDN2))
    x_BDL = x_BLD.transpose(1, 2)
    tables = _Powers(a, length)
    y_BDL = causal_convolution(x_BDL, tables.weighted_sums(c * b)) + tables.weighted_sums(c * a * state)
    ends = torch.full((len(x_BLD),), length, device=x_BLD.device) if lengths_B is None else lengths_B
    final = _power(a, ends, most=length) * state + b * tables.discounted_sums(latest_first(x_BDL, ends))
    return y_BDL.transpose(1, 2), torch.view_as_real(final)


class _Powers:
    """Tables of a^j (D, N, T) and a^(i T) (D, N, I), which together hold every a^t with t < length."""

    def __init__(self, a_DN: Tensor, length: int) -> None:
        self.length = length
        self.inner = 1 << math.ceil(math.log2(length) / 2)
        self.outer = -(-length // self.inner)
        self.fine_DNT = _powers(a_DN, self.inner)
        self.coarse_DNI = _powers(self.fine_DNT[..., -1] * a_DN, self.outer)

    def weighted_sums(self, coefficients: Tensor) -> Tensor:
        """`2 Re sum_n c_n a_n^t` for coefficients (..., D, N) and t < length: (..., D, length)."""
        left = (coefficients[..., None] * self.coarse_DNI).transpose(-1, -2)
        sums = left.real @ self.fine_DNT.real - left.imag @ self.fine_DNT.imag
        return 2 * sums.flatten(-2)[..., : self.length]

    def discounted_sums(self, x_BDL: Tensor) -> Tensor:
        """`sum_t a_n^t x_t`: (B, D, N), complex."""
        padded = torch.nn.functional.pad(x_BDL, (0, self.inner * self.outer - self.length))
        x_BDIT = padded.reshape(*x_BDL.shape[:-1], self.outer, self.inner)
        fine_DTN = self.fine_DNT.transpose(-1, -2)
        inner_BDIN = torch.complex(x_BDIT @ fine_DTN.real, x_BDIT @ fine_DTN.imag)
        return (inner_BDIN * self.coarse_DNI.transpose(-1, -2)).sum(-2)


def _powers(a: Tensor, count: int) -> Tensor:
    """a^0 ... a^(count-1) in a new last dimension, by doubling."""
    powers, top = torch.ones_like(a)[..., None], a[..., None]
    while powers.shape[-1] < count:
        powers = torch.cat([powers, powers * top], dim=-1)
        top = top * top
    return powers[..., :count]


def _power(a_DN: Tensor, exponent_B: Tensor, most: int) -> Tensor:
    """a^exponent for each row (B, D, N), by repeated squaring. No exponent is above `most`."""
    result = torch.ones_like(a_DN).expand(len(exponent_B), *a_DN.shape)
    for bit in range(most.bit_length()):
        chosen = (exponent_B >> bit & 1).bool()[:, None, None]
        result = torch.where(chosen, result * a_DN, result)
        a_DN = a_DN * a_DN
    return result
