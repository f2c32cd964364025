"""The recurrence of gated linear RNNs and diagonal state spaces: `h_t = a_t h_{t-1} + b_t`, element by element (Martin
and Cundy, 2018, "Parallelizing Linear Recurrent Neural Nets Over Sequence Length")."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.linear_scan import reference, torch_form
from ssp_kernels.padding import masked
from ssp_kernels.registry import Operator, in_triton


class LinearScanForm(Protocol):
    def forward(self, b_BLD: Tensor, a_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]: ...
    def step(self, b_BD: Tensor, a_BD: Tensor, state_BD: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]: ...


OPERATOR: Operator[LinearScanForm] = Operator(
    "linear_scan", {"reference": lambda: reference, "torch": lambda: torch_form, "triton": in_triton("linear_scan")}
)


def forward(b_BLD: Tensor, a_BLD: Tensor, state_BD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`h_t = a_t h_{t-1} + b_t` from a given state.

    Complex numbers are pairs of reals, in one more dimension of size 2 that all three arguments then have.

    Args:
        b_BLD: inputs (B, L, D), finite everywhere; L may be 0.
        a_BLD: factors (B, L, D), or (D,) if they are the same at every token; any numbers, 0 and negative included.
        state_BD: (B, D).
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        h after every token (B, L, D), and after each row's last valid one (B, D).
    """
    b_BLD, a_BLD = masked(b_BLD, lengths_B), a_BLD.expand_as(b_BLD)
    if lengths_B is not None:
        a_BLD = masked(a_BLD, lengths_B, a_BLD.new_tensor([1.0, 0.0]) if a_BLD.ndim == 4 else 1.0)
    return OPERATOR.pick(b_BLD).forward(b_BLD, a_BLD, state_BD)


def step(b_BD: Tensor, a_BD: Tensor, state_BD: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    return OPERATOR.pick(b_BD).step(b_BD, a_BD.expand_as(b_BD), state_BD, out)
