"""From continuous to discrete time: `x' = A x + B u` sampled with step dt (Ulbaek, 2024, "Deep Learning
with State Spaces for Efficient Sequence Modeling", here the thesis, equations 33 and 35)."""

import torch
from torch import Tensor


def zero_order_hold(A: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal zero-order hold: `Abar = exp(dt A)`, `Bbar = (exp(dt A) - 1) / A * B`.

    All arguments broadcast; A and B may be complex. Exact in the limit A -> 0, where `Bbar = dt B`.
    """
    z = dt * A
    return torch.exp(z), dt * B * _exp_minus_one_over(z)


def softmax_hold(A: Tensor, B: Tensor, dt: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Diagonal zero-order hold divided by `exp(length dt A) - 1`, so that a mode's kernel over that many tokens is its
    `softmax(t dt A)` times B / A (Gupta et al., 2022, DSS, proposition 1).

    The quotient `1 / x` is taken as `x^* / (|x|^2 + 1e-7)`, as in the published code.
    """
    z = dt * A
    x = A * torch.expm1(length * z)
    return torch.exp(z), B * torch.expm1(z) * x.conj() / (x.real**2 + x.imag**2 + 1e-7)


def bilinear(A: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal bilinear transform: `Abar = (1 + dt A / 2) / (1 - dt A / 2)`, `Bbar = dt B / (1 - dt A / 2)` (Tustin,
    1947). All arguments broadcast; A and B may be complex. |Abar| < 1 wherever Re(A) < 0."""
    half = dt * A / 2
    return (1 + half) / (1 - half), dt * B / (1 - half)


def bilinear_dplr(A: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bilinear transform of `A_full s = A s - P 2 Re(P^* s)`: the diagonal A minus rank one, over states s of which one
    of each conjugate pair is kept (Gu et al., 2022, S4, appendix C.2).

    By Woodbury's identity the inverse of `1 - dt A_full / 2` is the diagonal `R = 1 / (1 - dt A / 2)` minus rank one,
    whose capacitance is a real scalar. So `Abar = 2 R_full - 1` is of the same kind, and `Bbar = dt R_full B`.

    Args:
        A, P, B: complex (..., N), Re(A) at most 0.
        dt: real (..., 1).

    Returns:
        decay, U, V and Bbar (..., N), with `Abar s = decay * s - U 2 Re(V s)`.
    """
    decay, step_of_B = bilinear(A, B, dt)
    _, step_of_P = bilinear(A, P, dt)  # dt R P
    V = P.conj() / (1 - dt * A / 2)
    U = step_of_P / (1 + (P.conj() * step_of_P).sum(-1, keepdim=True).real)
    return decay, U, V, step_of_B - U * dt * (V * B).sum(-1, keepdim=True).real


def _exp_minus_one_over(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z. Its Taylor series stands in near 0, where the quotient has no value or no gradient."""
    near = z.abs() < 1e-3
    safe = torch.where(near, torch.ones_like(z), z)
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4))
    return torch.where(near, series, torch.expm1(safe) / safe)
