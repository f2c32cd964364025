"""Linear time-invariant state spaces, one system a feature: what S4, S4D and DSS have in common."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ssp_runtime.mixers.base import Coefficients, Mixer
from ssp_runtime.run import Recurrence, Run
from ssp_runtime.state import TensorSpec


class StateSpaceCoefficients(Coefficients):
    """Those of `s' = A s + B x`, `y = 2 Re(C s)` with the diagonal `A = -exp(A_real) - i A_imag`, and of its sampling
    with step `dt = exp(inv_dt)`. One of each pair of conjugate modes is kept; complex numbers are pairs of reals.

    The parameters are named and stored as in the published S4 code, version 4.
    """

    def __init__(self, A_N: Tensor, B_N: Tensor, dt_D: Tensor) -> None:
        super().__init__()
        features, modes = len(dt_D), len(A_N)
        self.inv_dt = nn.Parameter(dt_D.log()[:, None])
        self.A_real = nn.Parameter(torch.log(-A_N.real).float().repeat(features, 1))
        self.A_imag = nn.Parameter(-A_N.imag.float().repeat(features, 1))
        self.B = for_every_feature(B_N, features)
        self.C = nn.Parameter(torch.randn(features, modes, 2) * 0.5**0.5)

    def continuous(self) -> tuple[Tensor, Tensor, Tensor]:
        """A and B, complex (D, N), and dt (D, 1)."""
        A_DN = torch.complex(-torch.exp(self.A_real), -self.A_imag)
        return A_DN, torch.view_as_complex(self.B), torch.exp(self.inv_dt)


class StateSpace(Mixer):
    """`s_t = Abar s_{t-1} + Bbar x_t`, `y_t = 2 Re(C s_t) + D x_t`, one system a feature, the same at every token."""

    operator: ClassVar[Recurrence]

    def __init__(self, coefficients: StateSpaceCoefficients) -> None:
        super().__init__()
        self.coefficients: Coefficients = coefficients
        self.D = nn.Parameter(torch.ones(len(coefficients.C)))
        self.state_spec = {"ssm_state": TensorSpec(tuple(coefficients.C.shape), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return run(self.operator, x, *self.coefficients(), state="ssm_state") + self.D * x


def for_every_feature(x_N: Tensor, features: int) -> nn.Parameter:
    """Complex numbers as a parameter (D, N, 2)."""
    return nn.Parameter(torch.view_as_real(x_N.to(torch.complex64).resolve_conj()).repeat(features, 1, 1))


def conjugate_pairs(d_state: int) -> int:
    """How many pairs that many real states make.

    Raises:
        ValueError: one is left over.
    """
    if d_state < 2 or d_state % 2:
        raise ValueError(f"d_state must be even and at least 2, to hold conjugate pairs; got {d_state}")
    return d_state // 2
