"""LRU, the linear recurrent unit (Orvieto et al., 2023, "Resurrecting Recurrent Neural Networks for Long
Sequences")."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssp_runtime.mixers.base import Coefficients, Mixer, Positive, PositiveReal
from ssp_runtime.mixers.complex_modes import advance, in_reals
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec

Radius = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class LRUConfig:
    """`d_state` counts complex modes. They start in a ring of radii `r_min` to `r_max`, at phases up to `max_phase`."""

    kind: Literal["lru"] = "lru"
    d_state: Positive = 256
    r_min: Radius = 0.9
    r_max: Radius = 0.999
    max_phase: PositiveReal = 2 * math.pi

    def __post_init__(self) -> None:
        if not self.r_min < self.r_max:
            raise ValueError(f"the ring needs an r_min below r_max; got {self.r_min} and {self.r_max}")


class LRU(Mixer):
    """`h_t = Lambda h_{t-1} + gamma B x_t`, `y_t = Re(C h_t) + D x_t`, with Lambda diagonal and complex, B and C dense
    (sections 3.2 to 3.4)."""

    Config = LRUConfig

    def __init__(self, d_model: int, config: LRUConfig) -> None:
        super().__init__()
        self.coefficients: Coefficients = LRUCoefficients(d_model, config)
        self.D = nn.Parameter(torch.randn(d_model))
        self.state_spec = {"recurrent_state": TensorSpec((config.d_state, 2), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return advance(run, x, *self.coefficients(), state="recurrent_state") + self.D * x


class LRUCoefficients(Coefficients):
    """`Lambda = exp(-exp(nu_log) + i exp(theta_log))`, `gamma B` with `gamma = exp(gamma_log)`, and C, in reals.

    gamma starts at `sqrt(1 - |Lambda|^2)`, which gives all modes the same variance under white noise (section 3.4).
    """

    def __init__(self, d_model: int, config: LRUConfig) -> None:
        super().__init__()
        modes = config.d_state
        area = 1 - torch.rand(modes)  # above 0, and so is the phase: both have a logarithm
        squared_radius = area * (config.r_max**2 - config.r_min**2) + config.r_min**2
        self.nu_log = nn.Parameter(torch.log(-0.5 * torch.log(squared_radius)))
        self.theta_log = nn.Parameter(torch.log(config.max_phase * (1 - torch.rand(modes))))
        self.gamma_log = nn.Parameter(0.5 * torch.log(1 - squared_radius))
        self.B_re = nn.Parameter(torch.randn(modes, d_model) / math.sqrt(2 * d_model))
        self.B_im = nn.Parameter(torch.randn(modes, d_model) / math.sqrt(2 * d_model))
        self.C_re = nn.Parameter(torch.randn(d_model, modes) / math.sqrt(modes))
        self.C_im = nn.Parameter(torch.randn(d_model, modes) / math.sqrt(modes))

    def forward(self) -> tuple[Tensor, ...]:
        Lambda_N = torch.exp(torch.complex(-torch.exp(self.nu_log), torch.exp(self.theta_log)))
        B_ND = torch.exp(self.gamma_log)[:, None] * torch.complex(self.B_re, self.B_im)
        return in_reals(Lambda_N, B_ND, torch.complex(self.C_re, self.C_im))
