"""The matrix of `dplr_ssm` in full, over the reals.

A complex state (N, 2) is a real one of size S = 2 N, its real and imaginary parts alternating. In these terms the
transition is an S x S matrix, and `2 Re(C s)` is the product with one row.
"""

import torch
from torch import Tensor

from ssp_kernels.dplr_ssm.reference import transition


def transition_matrix(decay_DN2: Tensor, U_DN2: Tensor, V_DN2: Tensor) -> Tensor:
    """Abar (D, S, S)."""
    features, modes, _ = decay_DN2.shape
    unit_SDN2 = torch.eye(2 * modes).to(decay_DN2).view(-1, 1, modes, 2).expand(-1, features, -1, -1)
    return transition(unit_SDN2, decay_DN2, U_DN2, V_DN2).flatten(-2).permute(1, 2, 0)


def readout(C_DN2: Tensor) -> Tensor:
    """The row (D, S) that gives `2 Re(C s)`."""
    return torch.stack([2 * C_DN2[..., 0], -2 * C_DN2[..., 1]], dim=-1).flatten(-2)
