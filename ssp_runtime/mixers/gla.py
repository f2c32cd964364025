"""GLA, gated linear attention (Yang et al., 2023, "Gated Linear Attention Transformers with Hardware-Efficient
Training")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention
from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.heads import expanded, head_dim, merged, split
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class GLAConfig:
    """Keys have `d_model * expand_k` features over all heads, values `d_model`; `gate_temperature` is tau."""

    kind: Literal["gla"] = "gla"
    num_heads: Positive = 4
    expand_k: PositiveReal = 0.5
    gate_rank: Positive = 16
    gate_temperature: PositiveReal = 16.0


class GLA(Mixer):
    """`S_t = diag(a_t) S_{t-1} + k_t v_t^T`, `y_t = out_proj(norm(S_t^T q_t) * silu(g_t))`, with the decay
    `a_t = sigmoid(low rank of x_t)^(1 / tau)` for each key feature (equation 3 and section 4.4)."""

    Config = GLAConfig

    def __init__(self, d_model: int, config: GLAConfig) -> None:
        super().__init__()
        self.config = config
        d_key = expanded(d_model, config.expand_k, "expand_k")
        keys, values = head_dim(d_key, config.num_heads), head_dim(d_model, config.num_heads)
        self.q_proj = nn.Linear(d_model, d_key, bias=False)
        self.k_proj = nn.Linear(d_model, d_key, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.g_proj = nn.Linear(d_model, d_model, bias=False)
        self.gk_proj = nn.Sequential(
            nn.Linear(d_model, config.gate_rank, bias=False), nn.Linear(config.gate_rank, d_key)
        )
        self.g_norm = nn.RMSNorm(values, eps=1e-5)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        self.state_spec = {"recurrent_state": TensorSpec((config.num_heads, keys, values), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        log_decay = F.logsigmoid(self.gk_proj(x)) / self.config.gate_temperature
        q, k, v, log_decay = (
            split(t, self.config.num_heads) for t in (self.q_proj(x), self.k_proj(x), self.v_proj(x), log_decay)
        )
        y = run(linear_attention, q * q.shape[-1] ** -0.5, k, v, log_decay, None, state="recurrent_state")
        return torch.as_tensor(self.out_proj(merged(self.g_norm(y)) * F.silu(self.g_proj(x))))
