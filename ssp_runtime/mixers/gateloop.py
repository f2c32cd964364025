"""GateLoop (Katsch, 2023, "GateLoop: Fully Data-Controlled Linear Recurrence for Sequence Modeling")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_scan
from ssp_runtime.mixers.base import Mixer, Positive
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class GateLoopConfig:
    """The state has `expand * d_model` complex features."""

    kind: Literal["gateloop"] = "gateloop"
    expand: Positive = 1


class GateLoop(Mixer):
    """`h_t = a_t h_{t-1} + k_t v_t`, `y_t = out_proj(Re(q_t h_t) * silu(g_t))`, with as many heads as features and the
    complex decay `a_t = sigmoid(alpha_t) exp(i beta_t)`; q, k, v, alpha, beta and g are affine in x."""

    Config = GateLoopConfig

    def __init__(self, d_model: int, config: GateLoopConfig) -> None:
        super().__init__()
        d_inner = config.expand * d_model
        self.in_proj = nn.Linear(d_model, 6 * d_inner)
        self.out_proj = nn.Linear(d_inner, d_model)
        self.state_spec = {"recurrent_state": TensorSpec((d_inner, 2), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        q, k, v, alpha, beta, gate = self.in_proj(x).chunk(6, dim=-1)
        kv = torch.stack([k * v, torch.zeros_like(v)], dim=-1)
        h = run(linear_scan, kv, _decay(alpha, beta), state="recurrent_state")
        return torch.as_tensor(self.out_proj(q * h[..., 0] * F.silu(gate)))


def _decay(alpha: Tensor, beta: Tensor) -> Tensor:
    """`sigmoid(alpha) exp(i beta)` (..., 2), never narrower than float32: rounded to 8 bits it may be above 1."""
    dtype = torch.promote_types(alpha.dtype, torch.float32)
    magnitude, phase = torch.sigmoid(alpha.to(dtype)), beta.to(dtype)
    return torch.stack([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=-1)
