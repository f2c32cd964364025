"""DSS, the diagonal state space whose kernel is a softmax over the sequence (Gupta et al., 2022, "Diagonal State Spaces
are as Effective as Structured State Spaces")."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssp_kernels import lti_ssm
from ssp_kernels.discretization import softmax_hold
from ssp_runtime.mixers.base import Positive
from ssp_runtime.mixers.initialization import DiagonalInit, diagonal_state_matrix, log_uniform_dt
from ssp_runtime.mixers.state_space import StateSpace, StateSpaceCoefficients, conjugate_pairs
from ssp_runtime.run import Recurrence


@dataclass(frozen=True, kw_only=True)
class DSSConfig:
    """`l_train` is the length that the kernel is normalized over: that of the sequences trained on, and at every other
    length the same. `d_state` / 2 complex modes are kept."""

    kind: Literal["dss"] = "dss"
    l_train: Positive
    d_state: Positive = 64
    init: DiagonalInit = "legs"
    dt_min: float = 0.001
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        conjugate_pairs(self.d_state)


class DSS(StateSpace):
    """The state space with the kernel `Re(C B / A softmax_t(t dt A))` (proposition 1), all Re(A) negative. Its modes
    come without conjugates."""

    Config = DSSConfig
    operator: ClassVar[Recurrence] = lti_ssm

    def __init__(self, d_inner: int, config: DSSConfig) -> None:
        super().__init__(DSSCoefficients(d_inner, config))


class DSSCoefficients(StateSpaceCoefficients):
    """Abar, Bbar and C as pairs of reals (D, N, 2). The paper has but the product of B and C, there called w."""

    def __init__(self, d_inner: int, config: DSSConfig) -> None:
        A_N = diagonal_state_matrix(config.init, conjugate_pairs(config.d_state)).conj()
        super().__init__(A_N, torch.ones_like(A_N), log_uniform_dt(d_inner, config.dt_min, config.dt_max))
        self._l_train = config.l_train

    def forward(self) -> tuple[Tensor, ...]:
        Abar, Bbar = softmax_hold(*self.continuous(), self._l_train)
        return torch.view_as_real(Abar), torch.view_as_real(Bbar), self.C / 2  # the operator adds conjugates
