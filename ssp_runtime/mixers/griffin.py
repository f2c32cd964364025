"""Griffin's recurrent block (De et al., 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention for
Efficient Language Models", section 2.3 and figure 2c)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_runtime.mixers.base import Mixer, Positive
from ssp_runtime.mixers.mlp import activate
from ssp_runtime.mixers.rg_lru import RGLRU, RGLRUConfig
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.run import Run


@dataclass(frozen=True, kw_only=True)
class GriffinConfig:
    """`lru_width` None means the model's width, as in RecurrentGemma; the paper's is 4/3 of it."""

    kind: Literal["griffin"] = "griffin"
    lru_width: Positive | None = None
    d_conv: Positive = 4
    rg_lru: RGLRUConfig = field(default_factory=RGLRUConfig)


class Griffin(Mixer):
    """`out_proj(gelu(linear_y(x)) * rg_lru(conv(linear_x(x))))`."""

    Config = GriffinConfig

    def __init__(self, d_model: int, config: GriffinConfig) -> None:
        super().__init__()
        width = config.lru_width or d_model
        self.linear_y = nn.Linear(d_model, width)
        self.linear_x = nn.Linear(d_model, width)
        self.conv1d = ShortConvolution(width, config.d_conv)
        self.rg_lru = RGLRU(width, config.rg_lru)
        self.out_proj = nn.Linear(width, d_model)
        self.state_spec = {**self.conv1d.state_spec, **self.rg_lru.state_spec}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        u = self.conv1d.compute(self.linear_x(x), run)
        y = activate(self.linear_y(x), "gelu_tanh") * self.rg_lru.compute(u, run)
        return torch.as_tensor(self.out_proj(y))
