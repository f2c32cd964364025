"""Linear attention (Katharopoulos et al., 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear
Attention")."""

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

FeatureMap = Literal["elu", "relu", "identity", "product"]


@dataclass(frozen=True, kw_only=True)
class LinearAttentionConfig:
    """`normalize` makes of the sum over tokens a weighted mean; weights must be positive for that.

    The feature map "product" is that of two learned projections of a head. With `output_norm` queries are divided by
    the root of their size, and what a head reads has an RMS norm. Keys have `d_model * expand_k` features over all
    heads, values `d_model * expand_v`.
    """

    kind: Literal["linear_attention"] = "linear_attention"
    num_heads: Positive = 4
    expand_k: PositiveReal = 1.0
    expand_v: PositiveReal = 1.0
    feature_map: FeatureMap = "elu"
    normalize: bool = True
    output_norm: bool = False
    norm_eps: PositiveReal = 1e-5

    def __post_init__(self) -> None:
        if self.normalize and self.feature_map != "elu":
            raise ValueError("only positive features can be normalized: set normalize to false, or feature_map to elu")


class LinearAttention(Mixer):
    """`S_t = S_{t-1} + phi(k_t) v_t^T`, `z_t = z_{t-1} + phi(k_t)`, `y_t = out_proj(S_t^T phi(q_t) / z_t^T phi(q_t))`
    with `phi(x) = elu(x) + 1` (equations 7 and 18 to 20).

    z is S for one more value, which is always 1.
    """

    Config = LinearAttentionConfig

    def __init__(self, d_model: int, config: LinearAttentionConfig) -> None:
        super().__init__()
        self.config = config
        d_key = expanded(d_model, config.expand_k, "expand_k")
        d_value = expanded(d_model, config.expand_v, "expand_v")
        keys, values = head_dim(d_key, config.num_heads), head_dim(d_value, config.num_heads)
        self.q_proj = nn.Linear(d_model, d_key, bias=False)
        self.k_proj = nn.Linear(d_model, d_key, bias=False)
        self.v_proj = nn.Linear(d_model, d_value, bias=False)
        self.q_map, self.k_map = (_feature_map(config.feature_map, keys) for _ in range(2))
        self.norm = nn.RMSNorm(values, eps=config.norm_eps) if config.output_norm else nn.Identity()
        self.out_proj = nn.Linear(d_value, d_model, bias=False)
        shape = (config.num_heads, keys, values + config.normalize)
        self.state_spec = {"recurrent_state": TensorSpec(shape, "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        q, k, v = (split(proj(x), self.config.num_heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.q_map(q), self.k_map(k)
        if self.config.output_norm:
            q = q * q.shape[-1] ** -0.5
        return torch.as_tensor(self.out_proj(merged(self.norm(self._attend(q, k, v, run)))))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, run: Run) -> Tensor:
        never = q.new_zeros(self.config.num_heads, 1)  # the logarithm of a decay of 1
        if not self.config.normalize:
            return run(linear_attention, q, k, v, never, None, state="recurrent_state")
        v = F.pad(v, (0, 1), value=1.0)
        y = run(linear_attention, q, k, v, never, None, state="recurrent_state")
        return y[..., :-1] / (y[..., -1:] + 1e-6)


class Product(nn.Module):
    """Of two learned projections."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.layer1(x) * self.layer2(x))


class PositiveElu(nn.Module):
    """`elu(x) + 1`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x) + 1


def _feature_map(name: FeatureMap, features: int) -> nn.Module:
    match name:
        case "elu":
            return PositiveElu()
        case "relu":
            return nn.ReLU()
        case "product":
            return Product(features)
        case _:
            return nn.Identity()
