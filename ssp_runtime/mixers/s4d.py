"""S4D, the diagonal state space (Gu et al., 2022, "On the Parameterization and Initialization of Diagonal State Space
Models")."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssp_kernels import lti_ssm
from ssp_kernels.discretization import bilinear, zero_order_hold
from ssp_runtime.mixers.base import Positive
from ssp_runtime.mixers.initialization import DiagonalInit, diagonal_state_matrix, log_uniform_dt
from ssp_runtime.mixers.state_space import StateSpace, StateSpaceCoefficients, conjugate_pairs
from ssp_runtime.run import Recurrence

DISCRETIZATIONS = {"zoh": zero_order_hold, "bilinear": bilinear}


@dataclass(frozen=True, kw_only=True)
class S4DConfig:
    """`d_state` counts real states: d_state / 2 conjugate pairs are kept."""

    kind: Literal["s4d"] = "s4d"
    d_state: Positive = 64
    discretization: Literal["zoh", "bilinear"] = "zoh"
    init: DiagonalInit = "legs"
    dt_min: float = 0.001
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        conjugate_pairs(self.d_state)


class S4D(StateSpace):
    """The state space whose A is diagonal."""

    Config = S4DConfig
    operator: ClassVar[Recurrence] = lti_ssm

    def __init__(self, d_inner: int, config: S4DConfig) -> None:
        super().__init__(S4DCoefficients(d_inner, config))


class S4DCoefficients(StateSpaceCoefficients):
    """Abar, Bbar and C as pairs of reals (D, N, 2)."""

    def __init__(self, d_inner: int, config: S4DConfig) -> None:
        A_N = diagonal_state_matrix(config.init, conjugate_pairs(config.d_state)).conj()
        super().__init__(A_N, torch.ones_like(A_N), log_uniform_dt(d_inner, config.dt_min, config.dt_max))
        self._discretize = DISCRETIZATIONS[config.discretization]

    def forward(self) -> tuple[Tensor, ...]:
        Abar, Bbar = self._discretize(*self.continuous())
        return torch.view_as_real(Abar), torch.view_as_real(Bbar), self.C
