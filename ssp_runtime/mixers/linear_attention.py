"""Linear attention (Katharopoulos et al., 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear
Attention")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention
from ssp_runtime.mixers.base import Mixer, Positive
from ssp_runtime.mixers.heads import head_dim, merged, split
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class LinearAttentionConfig:
    """`normalize` makes of the sum over tokens a weighted mean; weights must not be negative for that."""

    kind: Literal["linear_attention"] = "linear_attention"
    num_heads: Positive = 4
    feature_map: Literal["elu", "identity"] = "elu"
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.normalize and self.feature_map == "identity":
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
        features = head_dim(d_model, config.num_heads)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        shape = (config.num_heads, features, features + config.normalize)
        self.state_spec = {"recurrent_state": TensorSpec(shape, "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        q, k, v = (split(proj(x), self.config.num_heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return torch.as_tensor(self.out_proj(merged(self._attend(self._phi(q), self._phi(k), v, run))))

    def _phi(self, x: Tensor) -> Tensor:
        return F.elu(x) + 1 if self.config.feature_map == "elu" else x

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, run: Run) -> Tensor:
        never = q.new_zeros(self.config.num_heads, 1)  # the logarithm of a decay of 1
        if not self.config.normalize:
            return run(linear_attention, q, k, v, never, None, state="recurrent_state")
        v = F.pad(v, (0, 1), value=1.0)
        y = run(linear_attention, q, k, v, never, None, state="recurrent_state")
        return y[..., :-1] / (y[..., -1:] + 1e-6)
