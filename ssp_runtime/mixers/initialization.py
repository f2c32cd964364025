"""Where the parameters of state spaces start."""

import math
from typing import Literal

import torch
from torch import Tensor

DiagonalInit = Literal["legs", "lin", "inv"]


def log_uniform_dt(count: int, smallest: float, largest: float) -> Tensor:
    """Step sizes (count,), log-uniform between the two.

    Raises:
        ValueError: there are none between them.
    """
    if not 0 < smallest <= largest < math.inf:
        raise ValueError(f"steps lie between dt_min and dt_max; choose 0 < dt_min <= dt_max, not {smallest}, {largest}")
    return torch.exp(torch.rand(count) * math.log(largest / smallest) + math.log(smallest))


def inverse_softplus(y: Tensor) -> Tensor:
    """x with softplus(x) = y, for y above 0."""
    return y + torch.log(-torch.expm1(-y))


def diagonal_state_matrix(init: DiagonalInit, modes: int) -> Tensor:
    """Diagonal A of S4D (Gu et al., 2022, "On the Parameterization and Initialization of Diagonal State Space Models"):
    complex (modes,), one of each conjugate pair, imaginary parts positive, all real parts -1/2.

    `legs`: eigenvalues of HiPPO-LegS without its rank-1 part; `lin` and `inv`: their S4D-Lin and S4D-Inv.
    """
    n = torch.arange(modes, dtype=torch.float64)
    if init == "lin":
        imaginary = math.pi * n
    elif init == "inv":
        imaginary = 2 * modes / math.pi * (2 * modes / (2 * n + 1) - 1)
    else:
        imaginary, _ = _legs_eigenvectors(2 * modes)
    return torch.complex(torch.full_like(imaginary, -0.5), imaginary)


def hippo_legs(modes: int) -> tuple[Tensor, Tensor, Tensor]:
    """A, P and B of HiPPO-LegS as `diag(A) - P P^*`: complex (modes,), one of each conjugate pair, imaginary parts of A
    positive (Gu et al., 2022, "Efficiently Modeling Long Sequences with Structured State Spaces", appendix C.1).

    Before the change of basis `B_n = sqrt(2 n + 1)` and `P_n = sqrt(n + 1/2)`.
    """
    frequencies, vectors = _legs_eigenvectors(2 * modes)
    B = vectors.mH @ torch.sqrt(2 * torch.arange(2 * modes, dtype=torch.float64) + 1).to(vectors)
    return torch.complex(torch.full_like(frequencies, -0.5), frequencies), B / 2**0.5, B


def _legs_eigenvectors(states: int) -> tuple[Tensor, Tensor]:
    """Positive imaginary parts of the eigenvalues of HiPPO-LegS's normal part, whose skew part is
    `sqrt(2i + 1) sqrt(2j + 1) / 2` above the diagonal and its negative below, and their eigenvectors as columns."""
    root = torch.sqrt(2 * torch.arange(states, dtype=torch.float64) + 1)
    product = torch.outer(root, root) / 2
    skew = product.triu(1) - product.tril(-1)
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    return frequencies[states // 2 :], vectors[:, states // 2 :]
