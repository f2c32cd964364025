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
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class GLAConfig:
    """Keys have `d_model * expand_k` features over all heads, values `d_model * expand_v`; `gate_temperature` is tau.
    With `d_conv` queries, keys and values go through a short causal convolution and SiLU."""

    kind: Literal["gla"] = "gla"
    num_heads: Positive = 4
    expand_k: PositiveReal = 0.5
    expand_v: PositiveReal = 1.0
    gate_rank: Positive = 16
    gate_temperature: PositiveReal = 16.0
    d_conv: Positive | None = None
    output_gate: bool = True
    norm_eps: PositiveReal = 1e-5


class GLA(Mixer):
    """`S_t = diag(a_t) S_{t-1} + k_t v_t^T`, `y_t = out_proj(norm(S_t^T q_t) * silu(g_t))`, with the decay
    `a_t = sigmoid(low rank of x_t)^(1 / tau)` for each key feature (equation 3 and section 4.4)."""

    Config = GLAConfig

    def __init__(self, d_model: int, config: GLAConfig) -> None:
        super().__init__()
        self.config = config
        d_key = expanded(d_model, config.expand_k, "expand_k")
        d_value = expanded(d_model, config.expand_v, "expand_v")
        keys, values = head_dim(d_key, config.num_heads), head_dim(d_value, config.num_heads)
        self.sizes = [d_key, d_key, d_value]
        self.q_proj = nn.Linear(d_model, d_key, bias=False)
        self.k_proj = nn.Linear(d_model, d_key, bias=False)
        self.v_proj = nn.Linear(d_model, d_value, bias=False)
        self.g_proj = nn.Linear(d_model, d_value, bias=False) if config.output_gate else None
        self.gk_proj = nn.Sequential(
            nn.Linear(d_model, config.gate_rank, bias=False), nn.Linear(config.gate_rank, d_key)
        )
        self.conv1d = ShortConvolution(sum(self.sizes), config.d_conv, bias=False) if config.d_conv else None
        self.g_norm = nn.RMSNorm(values, eps=config.norm_eps)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)
        self.state_spec = {
            **(self.conv1d.state_spec if self.conv1d else {}),
            "recurrent_state": TensorSpec((config.num_heads, keys, values), "accumulator"),
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        log_decay = F.logsigmoid(self.gk_proj(x)) / self.config.gate_temperature
        q, k, v, log_decay = (split(t, self.config.num_heads) for t in (*self._projected(x, run), log_decay))
        y = run(linear_attention, q * q.shape[-1] ** -0.5, k, v, log_decay, None, state="recurrent_state")
        y = merged(self.g_norm(y))
        return torch.as_tensor(self.out_proj(y if self.g_proj is None else y * F.silu(self.g_proj(x))))

    def _projected(self, x: Tensor, run: Run) -> tuple[Tensor, ...]:
        """Queries, keys and values."""
        projected = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.conv1d is None:
            return projected
        u = F.silu(self.conv1d.compute(torch.cat(projected, dim=-1), run))
        return torch.split(u, self.sizes, dim=-1)
