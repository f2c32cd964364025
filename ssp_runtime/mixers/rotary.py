"""Rotary position embedding (Su et al., 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding",
equation 34)."""

from typing import Literal

import torch
from torch import Tensor

# Which features make a pair: neighbours (0, 1), (2, 3), ... as in the paper, or those half the width apart.
Pairs = Literal["neighbours", "halves"]


def rotate(x: Tensor, positions: Tensor, *, base: float = 10_000.0, pairs: Pairs = "halves") -> Tensor:
    """x (..., H, K) with the n-th pair of its features turned by `position * base^(-2n / K)`, positions (...).

    Angles are computed in float64: float32 is 0.03 rad off at a position of a million.

    Raises:
        ValueError: K is odd.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"rotary embedding turns pairs of features; {x.shape[-1]} per head is odd: change num_heads")
    n = torch.arange(x.shape[-1] // 2, dtype=torch.float64, device=x.device)
    angles = positions[..., None, None].double() * base ** (-2 * n / x.shape[-1])
    return turned(x, angles, pairs)


def turned(x: Tensor, angles: Tensor, pairs: Pairs) -> Tensor:
    """x (..., K) with its pairs turned by angles (..., K / 2), of whatever precision they are."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    if pairs == "neighbours":
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
