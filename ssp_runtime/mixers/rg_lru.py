"""RG-LRU, the real-gated linear recurrent unit (De et al., 2024, "Griffin: Mixing Gated Linear Recurrences with Local
Attention for Efficient Language Models", section 2.4)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_scan, position
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive
from ssp_runtime.mixers.heads import head_dim, merged, split
from ssp_runtime.mixers.initialization import inverse_softplus
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec

DECAY_SCALE = 8  # c


@dataclass(frozen=True, kw_only=True)
class RGLRUConfig:
    """The gates' weights are `num_heads` blocks: each feature is gated by those of its own head."""

    kind: Literal["rg_lru"] = "rg_lru"
    num_heads: Positive = 4


class RGLRU(Mixer):
    """`h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t * x_t)` with `a_t = exp(-c softplus(Lambda) r_t)`, where the gates r
    and i are sigmoids of x (equations 1 to 4, a_t as in appendix A).

    The root keeps the state's variance; the first token of a sequence meets an empty one and goes without, as in the
    published code.
    """

    Config = RGLRUConfig

    def __init__(self, width: int, config: RGLRUConfig) -> None:
        super().__init__()
        self.input_gate = BlockDiagonal(width, config.num_heads)
        self.recurrent_gate = BlockDiagonal(width, config.num_heads)
        self.coefficients: Coefficients = RGLRUCoefficients(width)
        self.state_spec = {
            "recurrent_state": TensorSpec((width,), "accumulator"),
            "position": TensorSpec((), "index"),
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        (log_a,) = self.coefficients()
        # Not narrower than float32: rounded to 8 bits, a decay of 0.999 is 1.
        dtype = torch.promote_types(x.dtype, torch.float32)
        log_decay = log_a.to(dtype) * torch.sigmoid(self.recurrent_gate(x).to(dtype))
        is_first = run(position, x, state="position")[..., None] == 0
        scale = torch.where(is_first, 1, complement_in_squares(log_decay))
        gated = scale * (torch.sigmoid(self.input_gate(x)) * x)
        return run(linear_scan, gated, log_decay.exp(), state="recurrent_state").to(x.dtype)


class RGLRUCoefficients(Coefficients):
    """`-c softplus(Lambda)`, the logarithm of the decay of an open gate, which starts between 0.9 and 0.999."""

    def __init__(self, width: int) -> None:
        super().__init__()
        decay = torch.empty(width).uniform_(0.9, 0.999)
        self.Lambda = nn.Parameter(inverse_softplus(-decay.log() / DECAY_SCALE))

    def forward(self) -> tuple[Tensor, ...]:
        return (-DECAY_SCALE * F.softplus(self.Lambda),)


class BlockDiagonal(nn.Module):
    """A linear map of each head's features to as many, with a bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        size = head_dim(width, num_heads)
        self.weight = nn.Parameter(torch.randn(num_heads, size, size) / size**0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return merged(torch.einsum("...hi,hij->...hj", split(x, len(self.weight)), self.weight)) + self.bias


def complement_in_squares(log_a: Tensor) -> Tensor:
    """`sqrt(1 - a^2)`. Where a is 1 its gradient, which has no bound, is 0, as is that of a gate so far closed."""
    complement = -torch.expm1(2 * log_a)
    positive = complement > 0
    return torch.where(positive, torch.where(positive, complement, 1).sqrt(), 0)
