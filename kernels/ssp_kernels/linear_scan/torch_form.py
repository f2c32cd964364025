"""`linear_scan` in blocks that advance side by side.

Factors are only ever multiplied, never divided and never turned into logarithms, so that any of them may be 0.
"""

import torch
from torch import Tensor

from ssp_kernels.blocked_scan import blocked_scan
from ssp_kernels.linear_scan.differentiable import scanned
from ssp_kernels.linear_scan.reference import step

__all__ = ["forward", "step"]


def forward(b_BLD: Tensor, a_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]:
    return scanned(_scan, b_BLD, a_BLD, state_BD)


def _scan(b: Tensor, a: Tensor, state: Tensor) -> Tensor:
    return blocked_scan(b, a, state, plus=torch.add, times=torch.mul)
