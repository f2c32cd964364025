"""The selective scan of S6 (Gu and Dao, 2023, "Mamba", algorithm 2): a diagonal recurrence whose step size, input and
output matrices come from the input."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.padding import masked
from ssp_kernels.registry import Operator, in_triton
from ssp_kernels.selective_scan import reference, torch_form


class SelectiveScanForm(Protocol):
    def forward(
        self, x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, state_BDN: Tensor
    ) -> tuple[Tensor, Tensor]: ...
    def step(
        self,
        x_BD: Tensor,
        dt_BD: Tensor,
        A_DN: Tensor,
        B_BN: Tensor,
        C_BN: Tensor,
        state_BDN: Tensor,
        out: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


def _native() -> SelectiveScanForm:
    from ssp_kernels.selective_scan import native_form

    native_form.library()
    return native_form


OPERATOR: Operator[SelectiveScanForm] = Operator(
    "selective_scan",
    {
        "reference": lambda: reference,
        "torch": lambda: torch_form,
        "native": _native,
        "triton": in_triton("selective_scan"),
    },
)


def forward(
    x_BLD: Tensor,
    dt_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    state_BDN: Tensor,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`s_t = exp(dt_t A) s_{t-1} + dt_t B_t x_t`, `y_t = C_t s_t`, from a given state.

    Args:
        x_BLD: inputs (B, L, D), L may be 0.
        dt_BLD: step sizes (B, L, D), at least 0.
        A_DN: decay rates (D, N), at most 0.
        B_BLN, C_BLN: input and output vectors (B, L, N), shared by the features.
        state_BDN: (B, D, N).
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        Outputs (B, L, D) and the state after the last token (B, D, N). The states in between are never kept: at most
        one in 32 is, to recompute the others when gradients are wanted.
    """
    dt_BLD = masked(dt_BLD, lengths_B)  # a step of 0 is the identity on the state
    return OPERATOR.pick(x_BLD).forward(x_BLD, dt_BLD, A_DN, B_BLN, C_BLN, state_BDN)


def step(
    x_BD: Tensor,
    dt_BD: Tensor,
    A_DN: Tensor,
    B_BN: Tensor,
    C_BN: Tensor,
    state_BDN: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    return OPERATOR.pick(x_BD).step(x_BD, dt_BD, A_DN, B_BN, C_BN, state_BDN, out)
