"""Where the parameters of RWKV's layers start: spread over the features, and over the depth of the model (published
training code of RWKV-4 to RWKV-7)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

# i / n for layer i of n: the deeper a layer, the more of its features start out looking at the newest token alone.
Depth = Annotated[float, Field(ge=0, lt=1)]


def newest_share(features: int, power: float) -> Tensor:
    """How much of the newest token there is in its mixture with the one before (features,), growing from 0 to 1."""
    return (torch.arange(features) / features) ** power


def log_rates(count: int, least: float, most: float, depth: float) -> Tensor:
    """Logarithms of decay rates (count,), from slow to fast; in deeper layers more are slow."""
    return least + (most - least) * torch.linspace(0, 1, count) ** (0.7 + 1.3 * depth)


def zigzag(count: int) -> Tensor:
    """0, 1, -1 and so on (count,)."""
    return (torch.arange(count) + 1) % 3 - 1.0


def matrix_state_bonus(count: int, depth: float) -> Tensor:
    """Of RWKV-5 and RWKV-6 (count,)."""
    return depth * torch.linspace(1, 0, count) + 0.1 * zigzag(count)


def silent(d_in: int, d_out: int) -> nn.Linear:
    """A projection into the residual stream, which starts at nothing."""
    linear = nn.Linear(d_in, d_out, bias=False)
    nn.init.zeros_(linear.weight)
    return linear
