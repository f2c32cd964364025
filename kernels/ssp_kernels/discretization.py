"""From continuous to discrete time: `x' = A x + B u` sampled with step dt (thesis, equations 33 and 35)."""

import torch
from torch import Tensor


def zero_order_hold(A: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal zero-order hold: `Abar = exp(dt A)`, `Bbar = (exp(dt A) - 1) / A * B` (thesis, equation 35).

    All arguments broadcast; A and B may be complex. Exact in the limit A -> 0, where `Bbar = dt B`.
    """
    z = dt * A
    return torch.exp(z), dt * B * _exp_minus_one_over(z)


def bilinear(A: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal bilinear transform: `Abar = (1 + dt A / 2) / (1 - dt A / 2)`, `Bbar = dt B / (1 - dt A / 2)` (thesis,
    equation 33; Tustin, 1947). All arguments broadcast; A and B may be complex. |Abar| < 1 wherever Re(A) < 0."""
    half = dt * A / 2
    return (1 + half) / (1 - half), dt * B / (1 - half)


def _exp_minus_one_over(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z. Its Taylor series stands in near 0, where the quotient has no value or no gradient."""
    near = z.abs() < 1e-3
    safe = torch.where(near, torch.ones_like(z), z)
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4))
    return torch.where(near, series, torch.expm1(safe) / safe)
