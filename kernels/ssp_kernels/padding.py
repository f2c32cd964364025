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


def latest_first(x_BDL: Tensor, lengths_B: Tensor) -> Tensor:
    """Each row's valid tokens, last one first, then zeros."""
    index_BL = lengths_B[:, None] - 1 - torch.arange(x_BDL.shape[-1], device=x_BDL.device)
    latest = x_BDL.gather(-1, index_BL.clamp(min=0)[:, None].expand_as(x_BDL))
    return torch.where((index_BL >= 0)[:, None], latest, 0)
