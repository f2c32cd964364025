"""A linear time-invariant state space per feature whose matrix is diagonal plus rank one (Gu et al., 2022, "Efficiently
Modeling Long Sequences with Structured State Spaces", S4; the recurrence is that of their appendix C.2)."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.dplr_ssm import reference, torch_form
from ssp_kernels.dplr_ssm.matrix import transition_matrix
from ssp_kernels.registry import Operator

__all__ = ["OPERATOR", "forward", "step", "transition_matrix"]


class DPLRForm(Protocol):
    def forward(
        self,
        x_BLD: Tensor,
        decay_DN2: Tensor,
        U_DN2: Tensor,
        V_DN2: Tensor,
        Bbar_DN2: Tensor,
        C_DN2: Tensor,
        state_BDN2: Tensor,
        lengths_B: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...
    def step(
        self,
        x_BD: Tensor,
        decay_DN2: Tensor,
        U_DN2: Tensor,
        V_DN2: Tensor,
        Bbar_DN2: Tensor,
        C_DN2: Tensor,
        state_BDN2: Tensor,
        out: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


OPERATOR: Operator[DPLRForm] = Operator("dplr_ssm", {"reference": lambda: reference, "torch": lambda: torch_form})


def forward(
    x_BLD: Tensor,
    decay_DN2: Tensor,
    U_DN2: Tensor,
    V_DN2: Tensor,
    Bbar_DN2: Tensor,
    C_DN2: Tensor,
    state_BDN2: Tensor,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`s_t = Abar s_{t-1} + Bbar x_t`, `y_t = 2 Re(C s_t)`, from a given state, for each feature by itself, where
    `Abar s = decay * s - U 2 Re(V s)`.

    Only one of each pair of conjugate modes is kept, hence the factors 2. A complex number is a pair of reals in the
    last dimension. See `discretization.bilinear_dplr` for where the coefficients come from.

    Args:
        x_BLD: inputs (B, L, D), finite everywhere; L may be 0.
        decay_DN2, U_DN2, V_DN2: the discrete matrix (D, N, 2). No power of it may grow beyond bounds.
        Bbar_DN2, C_DN2: what goes in and out (D, N, 2).
        state_BDN2: (B, D, N, 2).
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        Outputs (B, L, D) and the state after each row's last valid token.
    """
    form = OPERATOR.pick(x_BLD)
    return form.forward(x_BLD, decay_DN2, U_DN2, V_DN2, Bbar_DN2, C_DN2, state_BDN2, lengths_B)


def step(
    x_BD: Tensor,
    decay_DN2: Tensor,
    U_DN2: Tensor,
    V_DN2: Tensor,
    Bbar_DN2: Tensor,
    C_DN2: Tensor,
    state_BDN2: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of `forward`, in O(N). The new state is written to `out` if given, which may be the state itself."""
    return OPERATOR.pick(x_BD).step(x_BD, decay_DN2, U_DN2, V_DN2, Bbar_DN2, C_DN2, state_BDN2, out)
