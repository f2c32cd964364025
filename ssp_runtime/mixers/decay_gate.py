"""Decays that depend on the input, as Mamba-2 has them: a step size for each token times a fixed rate for each head."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.base import Coefficients
from ssp_runtime.mixers.heads import split
from ssp_runtime.mixers.initialization import inverse_softplus, log_uniform_dt


class HeadRates(Coefficients):
    """`A = -exp(A_log)`, one a head, which starts between -16 and -1."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())

    def forward(self) -> tuple[Tensor, ...]:
        return (-torch.exp(self.A_log),)


class DecayGate(nn.Module):
    """`-exp(A_log) softplus(x + dt_bias)`, the logarithm of a decay, with one A a head and a bias for every feature."""

    def __init__(self, num_heads: int, features: int) -> None:
        super().__init__()
        self.coefficients: Coefficients = HeadRates(num_heads)
        self.dt_bias = nn.Parameter(inverse_softplus(log_uniform_dt(features, 0.001, 0.1)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., H, features / H) of (..., features)."""
        (A,) = self.coefficients()
        return torch.as_tensor(A[:, None] * split(F.softplus(x + self.dt_bias), len(A)))
