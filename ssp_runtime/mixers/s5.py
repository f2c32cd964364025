"""S5, one state space for all features together (Smith et al., 2023, "Simplified State Space Layers for Sequence
Modeling")."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_runtime.mixers.base import Coefficients, Mixer, Positive
from ssp_runtime.mixers.complex_modes import advance, in_reals
from ssp_runtime.mixers.initialization import DiagonalInit, diagonal_state_matrix, log_uniform_dt
from ssp_runtime.mixers.s4d import DISCRETIZATIONS
from ssp_runtime.mixers.state_space import conjugate_pairs
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class S5Config:
    """`d_state` counts real states: d_state / 2 conjugate pairs are kept."""

    kind: Literal["s5"] = "s5"
    d_state: Positive = 64
    discretization: Literal["zoh", "bilinear"] = "zoh"
    init: DiagonalInit = "legs"
    dt_min: float = 0.001
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        conjugate_pairs(self.d_state)


class S5(Mixer):
    """`s_t = Abar s_{t-1} + Bbar x_t`, `y_t = 2 Re(C s_t) + D x_t`, with Abar diagonal, B and C dense."""

    Config = S5Config

    def __init__(self, d_inner: int, config: S5Config) -> None:
        super().__init__()
        self.coefficients: Coefficients = S5Coefficients(d_inner, config)
        self.D = nn.Parameter(torch.randn(d_inner))
        self.state_spec = {"ssm_state": TensorSpec((conjugate_pairs(config.d_state), 2), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return advance(run, x, *self.coefficients(), state="ssm_state") + self.D * x


class S5Coefficients(Coefficients):
    """Abar, Bbar and 2 C in reals, from Lambda (N, 2), B (N, D, 2), C (D, N, 2) and a step size for each mode.

    B and C start normal: in the basis of HiPPO's unitary eigenvectors they are so again.
    """

    def __init__(self, d_inner: int, config: S5Config) -> None:
        super().__init__()
        modes = conjugate_pairs(config.d_state)
        self._discretize = DISCRETIZATIONS[config.discretization]
        A_N = diagonal_state_matrix(config.init, modes).to(torch.complex64)
        self.Lambda = nn.Parameter(torch.view_as_real(A_N))
        self.B = nn.Parameter(torch.randn(modes, d_inner, 2) / math.sqrt(2 * d_inner))
        self.C = nn.Parameter(torch.randn(d_inner, modes, 2) / math.sqrt(2 * config.d_state))
        self.log_step = nn.Parameter(log_uniform_dt(modes, config.dt_min, config.dt_max).log())

    def forward(self) -> tuple[Tensor, ...]:
        Lambda, B, C = (torch.view_as_complex(pair) for pair in (self.Lambda, self.B, self.C))
        Abar_N1, Bbar_ND = self._discretize(Lambda[:, None], B, torch.exp(self.log_step)[:, None])
        return in_reals(Abar_N1[:, 0], Bbar_ND, 2 * C)
