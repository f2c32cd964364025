"""Decays that depend on the input, as Mamba-2 has them: a step size for each token times a fixed rate for each head."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.base import Coefficients
from ssp_runtime.mixers.heads import split
from ssp_runtime.mixers.initialization import inverse_softplus, log_uniform_dt
from ssp_runtime.mixers.mamba2 import Mamba2Coefficients


class DecayGate(nn.Module):
    """`-exp(A_log) softplus(x + dt_bias)`, the logarithm of a decay, with one A a head and a bias for every feature."""

    def __init__(self, num_heads: int, features: int) -> None:
        super().__init__()
        self.coefficients: Coefficients = Mamba2Coefficients(num_heads)
        self.dt_bias = nn.Parameter(inverse_softplus(log_uniform_dt(features, 0.001, 0.1)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., H, features / H) of (..., features)."""
        (A,) = self.coefficients()
        return torch.as_tensor(A[:, None] * split(F.softplus(x + self.dt_bias), len(A)))
