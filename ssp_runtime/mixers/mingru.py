"""minGRU (Feng et al., 2024, "Were RNNs All We Needed?")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_kernels import linear_scan
from ssp_runtime.mixers.base import Mixer, Positive
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class MinGRUConfig:
    """The state has `expand * d_model` features."""

    kind: Literal["mingru"] = "mingru"
    expand: Positive = 2


class MinGRU(Mixer):
    """`h_t = (1 - z_t) h_{t-1} + z_t g(W_h x_t)` with `z_t = sigmoid(W_z x_t)`, then `out_proj(h_t)`.
    The activation g keeps states positive (appendix B.3, version 1)."""

    Config = MinGRUConfig

    def __init__(self, d_model: int, config: MinGRUConfig) -> None:
        super().__init__()
        d_inner = config.expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.state_spec = {"recurrent_state": TensorSpec((d_inner,), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        candidate, update = self.in_proj(x).chunk(2, dim=-1)
        z, kept = torch.sigmoid(update), torch.sigmoid(-update)
        h = run(linear_scan, z * positive(candidate), kept, state="recurrent_state")
        return torch.as_tensor(self.out_proj(h))


def positive(x: Tensor) -> Tensor:
    """`x + 1/2` from 0 on, `sigmoid(x)` below: continuous, increasing, above 0."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))
