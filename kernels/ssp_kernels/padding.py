"""Rows of unequal lengths in one batch: what follows a row's last token must change nothing."""

import torch
from torch import Tensor


def valid_tokens(length: int, lengths_B: Tensor) -> Tensor:
    """Which of `length` tokens are no padding (B, L)."""
    return torch.arange(length, device=lengths_B.device) < lengths_B[:, None]


def masked(x: Tensor, lengths_B: Tensor | None, value: float | Tensor = 0) -> Tensor:
    """The same (B, L, ...) with `value` for padding; without lengths there is none."""
    if lengths_B is None:
        return x
    valid_BL = valid_tokens(x.shape[1], lengths_B)
    return torch.where(valid_BL.view(*valid_BL.shape, *[1] * (x.ndim - 2)), x, value)
