"""Where the parameters of state spaces start."""

import math
from typing import Literal

import torch
from torch import Tensor

DiagonalInit = Literal["legs", "lin", "inv"]


def log_uniform_dt(count: int, smallest: float, largest: float) -> Tensor:
    """Step sizes (count,), log-uniform between the two."""
    return torch.exp(torch.rand(count) * math.log(largest / smallest) + math.log(smallest))


def diagonal_state_matrix(init: DiagonalInit, modes: int) -> Tensor:
    """Diagonal A of S4D (Gu et al., 2022, "On the Parameterization and Initialization of Diagonal State Space Models"):
    complex (modes,), one of each conjugate pair, imaginary parts positive, all real parts -1/2.

    `legs`: eigenvalues of HiPPO-LegS without its rank-1 part (their section 4.1); `lin` and `inv`: equations 8 and 9.
    """
    n = torch.arange(modes, dtype=torch.float64)
    if init == "lin":
        imaginary = math.pi * n
    elif init == "inv":
        imaginary = 2 * modes / math.pi * (2 * modes / (2 * n + 1) - 1)
    else:
        imaginary = _legs_frequencies(2 * modes)
    return torch.complex(torch.full_like(imaginary, -0.5), imaginary)


def _legs_frequencies(states: int) -> Tensor:
    """Positive imaginary parts of the eigenvalues of HiPPO-LegS's normal part, whose skew part is
    `sqrt(2i + 1) sqrt(2j + 1) / 2` below the diagonal and its negative above."""
    root = torch.sqrt(2 * torch.arange(states, dtype=torch.float64) + 1)
    product = torch.outer(root, root) / 2
    skew = product.triu(1) - product.tril(-1)
    eigenvalues: Tensor = torch.linalg.eigvalsh(1j * skew)
    return eigenvalues[states // 2 :]
