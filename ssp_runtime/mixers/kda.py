"""KDA, Kimi Delta Attention (Kimi Team, 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.decay_gate import DecayGate
from ssp_runtime.mixers.delta_heads import DeltaHeads
from ssp_runtime.mixers.heads import expanded, head_dim, merged
from ssp_runtime.run import Run


@dataclass(frozen=True, kw_only=True)
class KDAConfig:
    """Keys have `d_model * expand_k` features over all heads, values `d_model * expand_v`. `gate_rank` is that of the
    decays and of the output gate; None means the values of a head."""

    kind: Literal["kda"] = "kda"
    num_heads: Positive = 4
    expand_k: PositiveReal = 1.0
    expand_v: PositiveReal = 1.0
    d_conv: Positive = 4
    gate_rank: Positive | None = None


class KDA(Mixer):
    """`S_t = (I - beta_t k_t k_t^T) diag(a_t) S_{t-1} + beta_t k_t v_t^T`, `y_t = out_proj(norm(S_t^T q_t) *
    sigmoid(g_t))`, with a decay for each key feature, `a_t = exp(-exp(A_log) softplus(f_t + dt_bias))`; f and g are of
    low rank (equation 1 and section 4)."""

    Config = KDAConfig

    def __init__(self, d_model: int, config: KDAConfig) -> None:
        super().__init__()
        d_key = expanded(d_model, config.expand_k, "expand_k")
        d_value = expanded(d_model, config.expand_v, "expand_v")
        values = head_dim(d_value, config.num_heads)
        rank = config.gate_rank or values
        self.heads = DeltaHeads(d_model, config.num_heads, d_key, d_value, config.d_conv)
        self.f_proj = nn.Sequential(nn.Linear(d_model, rank, bias=False), nn.Linear(rank, d_key, bias=False))
        self.decay = DecayGate(config.num_heads, d_key)
        self.g_proj = nn.Sequential(nn.Linear(d_model, rank, bias=False), nn.Linear(rank, d_value, bias=False))
        self.o_norm = nn.RMSNorm(values, eps=1e-5)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)
        self.state_spec = self.heads.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        y = self.heads.compute(x, self.decay(self.f_proj(x)), run)
        return torch.as_tensor(self.out_proj(merged(self.o_norm(y)) * torch.sigmoid(self.g_proj(x))))
