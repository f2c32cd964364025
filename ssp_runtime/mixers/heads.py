"""Features divided among heads."""

from torch import Tensor


def head_dim(features: int, num_heads: int) -> int:
    """Features of one head.

    Raises:
        ValueError: they do not divide.
    """
    if not 0 < num_heads <= features or features % num_heads:
        raise ValueError(f"{features} features cannot be divided among {num_heads} heads; change num_heads or d_model")
    return features // num_heads


def num_heads_of(features: int, size: int, field: str) -> int:
    """Heads of that many features, the setting of that name.

    Raises:
        ValueError: they do not divide.
    """
    if not 0 < size <= features or features % size:
        raise ValueError(f"{features} features cannot be divided into heads of {size}; change {field} or d_model")
    return features // size


def expanded(features: int, factor: float, field: str) -> int:
    """`features` times the setting of that name.

    Raises:
        ValueError: that is no whole number.
    """
    product = features * factor
    if product < 0.5 or abs(product - round(product)) > 1e-6:
        raise ValueError(f"{features} times {factor:g} are {product:g} features; change {field} or d_model")
    return round(product)


def split(x: Tensor, num_heads: int) -> Tensor:
    """(..., D) as (..., H, D / H)."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def merged(x: Tensor) -> Tensor:
    """(..., H, D) as (..., H D)."""
    return x.flatten(-2)
