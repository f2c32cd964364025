"""Mega's multi-dimensional damped exponential moving average (Ma et al., 2022, "Mega: Moving Average Equipped Gated
Attention")."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_kernels import linear_scan
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class EMAConfig:
    """Each feature is averaged at `d_state` paces."""

    kind: Literal["ema"] = "ema"
    d_state: Positive = 16


class EMA(Mixer):
    """`h_t = alpha beta x_t + (1 - alpha delta) h_{t-1}`, `y_t = eta h_t + D x_t`, all real, with `d_state` averages a
    feature (section 3.1)."""

    Config = EMAConfig

    def __init__(self, d_inner: int, config: EMAConfig) -> None:
        super().__init__()
        self.coefficients: Coefficients = EMACoefficients(d_inner, config.d_state)
        self.D = nn.Parameter(torch.randn(d_inner))
        self.state_spec = {"ema_state": TensorSpec((d_inner * config.d_state,), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        decay, expansion, reduction = self.coefficients()
        inputs = (x[..., None] * expansion).flatten(-2)
        h = run(linear_scan, inputs, decay.flatten(), state="ema_state")
        averages = h.reshape(*x.shape, reduction.shape[-1])
        return torch.sum(averages * reduction, dim=-1) + self.D * x


class EMACoefficients(Coefficients):
    """`1 - alpha delta`, `alpha beta` and `eta`, each (D, N), where `alpha` and `delta` are sigmoids of their
    parameters."""

    def __init__(self, d_inner: int, d_state: int) -> None:
        super().__init__()
        signs = torch.tensor([1.0, -1.0]).repeat(d_state)[:d_state]
        self.alpha = nn.Parameter(0.2 * torch.randn(d_inner, d_state))
        self.delta = nn.Parameter(0.2 * torch.randn(d_inner, d_state))
        self.beta = nn.Parameter(signs + 0.02 * torch.randn(d_inner, d_state))
        self.eta = nn.Parameter(torch.randn(d_inner, d_state) / math.sqrt(d_state))

    def forward(self) -> tuple[Tensor, ...]:
        alpha, delta = torch.sigmoid(self.alpha), torch.sigmoid(self.delta)
        return 1 - alpha * delta, alpha * self.beta, self.eta
