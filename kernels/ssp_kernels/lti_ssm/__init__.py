"""A linear time-invariant state space per feature, diagonal and complex (Gu et al., 2022, "On the Parameterization and
Initialization of Diagonal State Space Models", S4D)."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.lti_ssm import reference, torch_form
from ssp_kernels.registry import Operator


class LTIForm(Protocol):
    def forward(
        self,
        x_BLD: Tensor,
        Abar_DN2: Tensor,
        Bbar_DN2: Tensor,
        C_DN2: Tensor,
        state_BDN2: Tensor,
        lengths_B: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...
    def step(
        self,
        x_BD: Tensor,
        Abar_DN2: Tensor,
        Bbar_DN2: Tensor,
        C_DN2: Tensor,
        state_BDN2: Tensor,
        out: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


OPERATOR: Operator[LTIForm] = Operator("lti_ssm", {"reference": lambda: reference, "torch": lambda: torch_form})


def forward(
    x_BLD: Tensor,
    Abar_DN2: Tensor,
    Bbar_DN2: Tensor,
    C_DN2: Tensor,
    state_BDN2: Tensor,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`s_t = Abar s_{t-1} + Bbar x_t`, `y_t = 2 Re(C s_t)`, from a given state, for each feature by itself.

    Only one of each pair of conjugate modes is kept, hence the factor 2. A complex number is a pair of reals in the
    last dimension.

    Args:
        x_BLD: inputs (B, L, D), finite everywhere; L may be 0.
        Abar_DN2, Bbar_DN2, C_DN2: discrete coefficients (D, N, 2), |Abar| at most 1.
        state_BDN2: (B, D, N, 2).
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        Outputs (B, L, D) and the state after each row's last valid token.
    """
    return OPERATOR.pick(x_BLD).forward(x_BLD, Abar_DN2, Bbar_DN2, C_DN2, state_BDN2, lengths_B)


def step(
    x_BD: Tensor, Abar_DN2: Tensor, Bbar_DN2: Tensor, C_DN2: Tensor, state_BDN2: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    return OPERATOR.pick(x_BD).step(x_BD, Abar_DN2, Bbar_DN2, C_DN2, state_BDN2, out)
