"""SRU, the simple recurrent unit in its first form, without the state in its gates (Lei et al., 2017, "Training RNNs as
Fast as CNNs", version 1)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_kernels import linear_scan
from ssp_runtime.mixers.base import Mixer
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class SRUConfig:
    kind: Literal["sru"] = "sru"


class SRU(Mixer):
    """`c_t = f_t c_{t-1} + (1 - f_t) W x_t`, `h_t = r_t tanh(c_t) + (1 - r_t) x_t`, with the forget gate f and the
    highway gate r sigmoids of affine maps of x."""

    Config = SRUConfig

    def __init__(self, d_model: int, config: SRUConfig) -> None:
        super().__init__()
        del config  # it has no settings
        self.value_proj = nn.Linear(d_model, d_model, bias=False)
        self.gate_proj = nn.Linear(d_model, 2 * d_model)
        self.state_spec = {"recurrent_state": TensorSpec((d_model,), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        forget, highway = torch.sigmoid(self.gate_proj(x)).chunk(2, dim=-1)
        c = run(linear_scan, (1 - forget) * self.value_proj(x), forget, state="recurrent_state")
        return highway * torch.tanh(c) + (1 - highway) * x
