"""S4D, the diagonal state space (Gu et al., 2022, "On the Parameterization and Initialization of Diagonal State Space
Models"), discretized by zero-order hold."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_kernels import lti_ssm
from ssp_kernels.discretization import zero_order_hold
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive
from ssp_runtime.mixers.initialization import DiagonalInit, diagonal_state_matrix, log_uniform_dt
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class S4DConfig:
    """`d_state` counts real states: d_state / 2 conjugate pairs are kept."""

    kind: Literal["s4d"] = "s4d"
    d_state: Positive = 64
    init: DiagonalInit = "legs"
    dt_min: float = 0.001
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        if self.d_state < 2 or self.d_state % 2:
            raise ValueError(f"d_state must be even and at least 2, to hold conjugate pairs; got {self.d_state}")


class S4D(Mixer):
    """`s_t = Abar s_{t-1} + Bbar x_t`, `y_t = 2 Re(C s_t) + D x_t`, one system a feature, the same at every token."""

    Config = S4DConfig

    def __init__(self, d_inner: int, config: S4DConfig) -> None:
        super().__init__()
        self.coefficients: Coefficients = S4DCoefficients(d_inner, config)
        self.D = nn.Parameter(torch.ones(d_inner))
        self.state_spec = {"ssm_state": TensorSpec((d_inner, config.d_state // 2, 2), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return run(lti_ssm, x, *self.coefficients(), state="ssm_state") + self.D * x


class S4DCoefficients(Coefficients):
    """Abar, Bbar and C as pairs of reals (D, N, 2), from `A = -exp(A_real) - i A_imag` and `dt = exp(inv_dt)`.

    The parameters are named and stored as in the published S4 code, version 4.
    """

    def __init__(self, d_inner: int, config: S4DConfig) -> None:
        super().__init__()
        modes = config.d_state // 2
        A_N = diagonal_state_matrix(config.init, modes).conj().to(torch.complex64)
        self.inv_dt = nn.Parameter(log_uniform_dt(d_inner, config.dt_min, config.dt_max).log()[:, None])
        self.A_real = nn.Parameter(torch.log(-A_N.real).repeat(d_inner, 1))
        self.A_imag = nn.Parameter(-A_N.imag.repeat(d_inner, 1))
        self.B = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(d_inner, modes, 1))
        self.C = nn.Parameter(torch.randn(d_inner, modes, 2) * 0.5**0.5)

    def forward(self) -> tuple[Tensor, ...]:
        A_DN = torch.complex(-torch.exp(self.A_real), -self.A_imag)
        Abar, Bbar = zero_order_hold(A_DN, torch.view_as_complex(self.B), torch.exp(self.inv_dt))
        return torch.view_as_real(Abar), torch.view_as_real(Bbar), self.C
