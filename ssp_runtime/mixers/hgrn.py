"""HGRN, the hierarchically gated recurrent network (Qin et al., 2023, "Hierarchically Gated Recurrent Neural Network
for Sequence Modeling"), with the real-valued state of its published code."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_scan
from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.lower_bound import Bound, LowerBound
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class HGRNConfig:
    """`lower_bound` is the least that is kept of a state per token, or "learned" for each feature; it should grow with
    depth."""

    kind: Literal["hgrn"] = "hgrn"
    expand: Positive = 1
    lower_bound: Bound = 0.0
    norm_eps: PositiveReal = 1e-5


class HGRN(Mixer):
    """`h_t = f_t h_{t-1} + (1 - f_t) silu(i_t)`, `y_t = out_proj(norm(h_t) * silu(g_t))`, where the forget gate
    `f = lower_bound + (1 - lower_bound) sigmoid` is bounded from below."""

    Config = HGRNConfig

    def __init__(self, d_model: int, config: HGRNConfig) -> None:
        super().__init__()
        d_inner = config.expand * d_model
        self.lower_bound = LowerBound(config.lower_bound, d_inner)
        self.in_proj = nn.Linear(d_model, 3 * d_inner, bias=False)
        self.norm = nn.RMSNorm(d_inner, eps=config.norm_eps)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.state_spec = {"recurrent_state": TensorSpec((d_inner,), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        value, forget, gate = self.in_proj(x).chunk(3, dim=-1)
        bound = self.lower_bound(forget)
        decay = bound + (1 - bound) * torch.sigmoid(forget)
        h = run(linear_scan, ((1 - decay) * F.silu(value)).to(x.dtype), decay, state="recurrent_state")
        return torch.as_tensor(self.out_proj(self.norm(h) * F.silu(gate)))
