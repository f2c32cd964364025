"""Features divided among heads."""

from torch import Tensor


def head_dim(features: int, num_heads: int) -> int:
    """Features of one head.

    Raises:
        ValueError: they do not divide.
    """
    if features % num_heads:
        raise ValueError(
            f"{features} features cannot be divided among {num_heads} heads; choose num_heads that divides"
        )
    return features // num_heads


def num_heads_of(features: int, size: int) -> int:
    """Heads of that many features.

    Raises:
        ValueError: they do not divide.
    """
    if features % size:
        raise ValueError(f"{features} features cannot be divided into heads of {size}; choose a size that divides")
    return features // size


def split(x: Tensor, num_heads: int) -> Tensor:
    """(..., D) as (..., H, D / H)."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def merged(x: Tensor) -> Tensor:
    """(..., H, D) as (..., H D)."""
    return x.flatten(-2)
