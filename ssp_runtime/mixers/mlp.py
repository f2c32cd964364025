"""Multilayer perceptrons, which have no state: what mixes features where the mixer before mixed tokens."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.base import Mixer, Positive
from ssp_runtime.run import Run

Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True, kw_only=True)
class GatedMLPConfig:
    """`d_hidden` None means 8/3 of the width, in a multiple of 8: as many weights as an MLP of 4 times the width."""

    kind: Literal["gated_mlp"] = "gated_mlp"
    d_hidden: Positive | None = None
    activation: Activation = "silu"
    bias: bool = False


class GatedMLP(Mixer):
    """`down_proj(activation(gate_proj(x)) * up_proj(x))` (Shazeer, 2020, "GLU Variants Improve Transformer")."""

    Config = GatedMLPConfig

    def __init__(self, d_model: int, config: GatedMLPConfig) -> None:
        super().__init__()
        d_hidden = config.d_hidden or -(-d_model // 3) * 8
        self.activation = config.activation
        self.gate_proj = nn.Linear(d_model, d_hidden, bias=config.bias)
        self.up_proj = nn.Linear(d_model, d_hidden, bias=config.bias)
        self.down_proj = nn.Linear(d_hidden, d_model, bias=config.bias)
        self.state_spec = {}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        del run  # it remembers nothing
        return torch.as_tensor(self.down_proj(activate(self.gate_proj(x), self.activation) * self.up_proj(x)))


def activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
