"""DeltaNet (Schlag et al., 2021, "Linear Transformers Are Secretly Fast Weight Programmers"), as Yang et al. (2024,
"Parallelizing Linear Transformers with the Delta Rule over Sequence Length") build it."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.delta_heads import DeltaHeads
from ssp_runtime.mixers.heads import expanded, head_dim, merged
from ssp_runtime.run import Run


@dataclass(frozen=True, kw_only=True)
class DeltaNetConfig:
    """Keys have `d_model * expand_k` features over all heads, values `d_model * expand_v`. Without `d_conv` there is
    no short convolution."""

    kind: Literal["deltanet"] = "deltanet"
    num_heads: Positive = 4
    expand_k: PositiveReal = 1.0
    expand_v: PositiveReal = 1.0
    d_conv: Positive | None = 4
    allow_negative_eigenvalues: bool = False
    output_gate: bool = False
    norm_eps: PositiveReal = 1e-5


class DeltaNet(Mixer):
    """`S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T`, `y_t = out_proj(norm(S_t^T q_t))` (Yang et al., 2024,
    sections 2.2 and 3.3), times `silu(g_t)` with an output gate."""

    Config = DeltaNetConfig

    def __init__(self, d_model: int, config: DeltaNetConfig) -> None:
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
        self.g_proj = nn.Linear(d_model, d_value, bias=False) if config.output_gate else None
        self.o_norm = nn.RMSNorm(head_dim(d_value, config.num_heads), eps=config.norm_eps)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)
        self.state_spec = self.heads.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        y = self.heads.compute(x, x.new_zeros(self.heads.num_heads, 1), run)
        y = merged(self.o_norm(y))
        return torch.as_tensor(self.out_proj(y if self.g_proj is None else y * F.silu(self.g_proj(x))))
