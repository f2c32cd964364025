"""S4, the structured state space (Gu et al., 2022, "Efficiently Modeling Long Sequences with Structured State
Spaces")."""

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssp_kernels import dplr_ssm
from ssp_kernels.discretization import bilinear_dplr
from ssp_runtime.mixers.base import Positive
from ssp_runtime.mixers.initialization import hippo_legs, log_uniform_dt
from ssp_runtime.mixers.state_space import StateSpace, StateSpaceCoefficients, conjugate_pairs, for_every_feature
from ssp_runtime.run import Recurrence


@dataclass(frozen=True, kw_only=True)
class S4Config:
    """`d_state` counts real states: d_state / 2 conjugate pairs are kept."""

    kind: Literal["s4"] = "s4"
    d_state: Positive = 64
    dt_min: float = 0.001
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        conjugate_pairs(self.d_state)


class S4(StateSpace):
    """The state space whose matrix is `diag(A) - P P^*` (theorem 1), at first that of HiPPO-LegS, under the bilinear
    transform (equation 3)."""

    Config = S4Config
    operator: ClassVar[Recurrence] = dplr_ssm

    def __init__(self, d_inner: int, config: S4Config) -> None:
        super().__init__(S4Coefficients(d_inner, config))


class S4Coefficients(StateSpaceCoefficients):
    """The discrete matrix (decay, U, V), Bbar and C as pairs of reals (D, N, 2), see `dplr_ssm`."""

    def __init__(self, d_inner: int, config: S4Config) -> None:
        A_N, P_N, B_N = (t.conj() for t in hippo_legs(conjugate_pairs(config.d_state)))
        super().__init__(A_N, B_N, log_uniform_dt(d_inner, config.dt_min, config.dt_max))
        self.P = for_every_feature(P_N, d_inner)

    def forward(self) -> tuple[Tensor, ...]:
        A_DN, B_DN, dt_D1 = self.continuous()
        discrete = bilinear_dplr(A_DN, torch.view_as_complex(self.P), B_DN, dt_D1)
        return *map(torch.view_as_real, discrete), self.C


@torch.no_grad()
def recovered_C(coefficients: S4Coefficients, l_kernel: int) -> Tensor:  # noqa: N802  # the field's name
    """The C of the recurrence (D, N, 2). Checkpoints of the published code hold `C (1 - Abar^l_kernel)` in its place
    (algorithm 1, line 1).

    Args:
        coefficients: with every parameter as in the checkpoint, C included, without leading dimensions of size 1.
        l_kernel: the checkpoint's number of that name; 0 says that its C is the C of the recurrence.
    """
    if l_kernel == 0:
        return coefficients.C.clone()
    *matrix, _, C_DN2 = copy.deepcopy(coefficients).double().forward()
    kept_DSS = torch.linalg.matrix_power(dplr_ssm.transition_matrix(*matrix), l_kernel)
    lost_DSS = torch.eye(kept_DSS.shape[-1]).to(kept_DSS) - kept_DSS
    conjugate = C_DN2.new_tensor([1.0, -1.0])  # Re(C s) is the product of the reals of C^* and s
    C_DS: Tensor = torch.linalg.solve(lost_DSS.mT, (C_DN2 * conjugate).flatten(-2))
    return (C_DS.view_as(C_DN2) * conjugate).to(coefficients.C.dtype)
