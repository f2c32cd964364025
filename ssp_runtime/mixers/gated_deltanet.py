"""Gated DeltaNet (Yang et al., 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.decay_gate import DecayGate
from ssp_runtime.mixers.delta_heads import DeltaHeads
from ssp_runtime.mixers.heads import expanded, head_dim, merged
from ssp_runtime.run import Run


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNetConfig:
    """Keys have `d_model * expand_k` features over all heads, values `d_model * expand_v`. Without `d_conv` there is
    no short convolution."""

    kind: Literal["gated_deltanet"] = "gated_deltanet"
    num_heads: Positive = 4
    expand_k: PositiveReal = 0.75
    expand_v: PositiveReal = 1.5
    d_conv: Positive | None = 4
    allow_negative_eigenvalues: bool = False
    output_gate: bool = True
    norm_eps: PositiveReal = 1e-5


class GatedDeltaNet(Mixer):
    """`S_t = a_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T`, `y_t = out_proj(norm(S_t^T q_t) * silu(g_t))`,
    with one decay a head, `a_t = exp(-exp(A_log) softplus(a_proj(x_t) + dt_bias))` (equation 10 and section 3.4)."""

    Config = GatedDeltaNetConfig

    def __init__(self, d_model: int, config: GatedDeltaNetConfig) -> None:
        super().__init__()
        d_key = expanded(d_model, config.expand_k, "expand_k")
        d_value = expanded(d_model, config.expand_v, "expand_v")
        self.heads = DeltaHeads(
            d_model,
            config.num_heads,
            d_key,
            d_value,
            config.d_conv,
            negative_eigenvalues=config.allow_negative_eigenvalues,
        )
        self.a_proj = nn.Linear(d_model, config.num_heads, bias=False)
        self.decay = DecayGate(config.num_heads, config.num_heads)
        self.g_proj = nn.Linear(d_model, d_value, bias=False) if config.output_gate else None
        self.o_norm = nn.RMSNorm(head_dim(d_value, config.num_heads), eps=config.norm_eps)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)
        self.state_spec = self.heads.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        y = self.heads.compute(x, self.decay(self.a_proj(x)), run)
        y = merged(self.o_norm(y))
        return torch.as_tensor(self.out_proj(y if self.g_proj is None else y * F.silu(self.g_proj(x))))
