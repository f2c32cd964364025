"""RWKV-7 (Peng et al., 2025, "RWKV-7 'Goose' with Expressive Dynamic State Evolution"): time mixing and channel mixing.

Parameters are named and stored as in the published code.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import delta_rule, token_shift
from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.heads import head_dim, merged, split
from ssp_runtime.mixers.norms import GroupLayerNorm
from ssp_runtime.mixers.rwkv import Depth, newest_share, silent
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec

# How fast the share of the newest token grows over the features, relative to the layer's height.
POWERS = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
FASTEST = math.exp(-0.5)  # the largest decay rate


@dataclass(frozen=True, kw_only=True)
class RWKV7Config:
    """Ranks are of what depends on the input: decays, in-context learning rates, value residuals and gates."""

    kind: Literal["rwkv7"] = "rwkv7"
    num_heads: Positive = 4
    decay_rank: Positive = 64
    rate_rank: Positive = 64
    value_rank: Positive = 32
    gate_rank: Positive = 128
    group_norm_eps: PositiveReal = 64e-5
    depth: Depth = 0.0


@dataclass(frozen=True, kw_only=True)
class RWKV7ChannelMixingConfig:
    """`d_hidden` None means 4 times the width."""

    kind: Literal["rwkv7_channel_mixing"] = "rwkv7_channel_mixing"
    d_hidden: Positive | None = None
    depth: Depth = 0.0


class RWKV7(Mixer):
    """Time mixing: `S_t = (diag(w_t) - (a_t * n_t) n_t^T) S_{t-1} + k_t v_t^T`, `y_t = S_t^T r_t` for each head, where
    n is the direction that is removed, a the in-context learning rate and v partly the first layer's value; then
    `output((norm(y_t) + (r_t . (r_k * k_t)) v_t) * g_t)` (section 4.1)."""

    Config = RWKV7Config

    def __init__(self, d_model: int, config: RWKV7Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        per_head = head_dim(d_model, config.num_heads)
        for part, power in POWERS.items():
            share = newest_share(d_model, power * (1 - config.depth))
            self.register_parameter(f"x_{part}", nn.Parameter(1 - share))
        self._add_low_ranks(d_model, config)
        self.receptance = _linear(d_model, 0.5)
        self.key = _linear(d_model, 0.05)
        self.value = _linear(d_model, 0.5)
        self.output = silent(d_model, d_model)
        self.ln_x = GroupLayerNorm(d_model, config.num_heads, config.group_norm_eps, bias=True)
        self.state_spec = {
            "shift_state": TensorSpec((d_model,), "activation"),
            "wkv_state": TensorSpec((config.num_heads, per_head, per_head), "accumulator"),
        }

    def _add_low_ranks(self, d_model: int, config: RWKV7Config) -> None:
        slope = torch.linspace(-0.5, 0.5, d_model)
        bow = torch.linspace(-1, 1, head_dim(d_model, config.num_heads)).repeat(config.num_heads)
        bow = bow * bow.abs()
        self.w0 = nn.Parameter(-5.5 + 6 * (slope + 0.5) ** (1 + config.depth**0.3) + 2.5 * bow)
        self.a0 = nn.Parameter(-0.19 + 0.3 * bow + 0.4 * slope)
        self.v0 = nn.Parameter(0.73 - 0.4 * slope)
        self.k_k = nn.Parameter(0.71 - 0.1 * slope)
        self.k_a = nn.Parameter(torch.full((d_model,), 1.02))
        self.r_k = nn.Parameter(torch.full((d_model,), -0.04))
        self.w1, self.w2 = _low_rank(d_model, config.decay_rank)
        self.a1, self.a2 = _low_rank(d_model, config.rate_rank)
        self.v1, self.v2 = _low_rank(d_model, config.value_rank)
        self.g1, self.g2 = _low_rank(d_model, config.gate_rank)

    def compute(self, x: Tensor, run: Run) -> Tensor:
        before = run(token_shift, x, state="shift_state")
        r, w, k, v, a, g = (torch.lerp(x, before, self.get_parameter(f"x_{part}")) for part in POWERS)
        log_decay = -FASTEST * torch.sigmoid(self.w0 + torch.tanh(w @ self.w1) @ self.w2)
        rate = torch.sigmoid(self.a0 + a @ self.a1 @ self.a2)
        r, v = self.receptance(r), self._value(v, run)
        removed, k = self._keys(self.key(k), rate)
        r, k, v, log_decay, rate, removed, r_k = (
            split(t, self.num_heads) for t in (r, k, v, log_decay, rate, removed, self.r_k)
        )
        removed = F.normalize(removed, dim=-1)
        y = run(delta_rule, r, k, v, log_decay, -rate * removed, removed, state="wkv_state")
        y = self.ln_x(merged(y)) + merged((r * r_k * k).sum(-1, keepdim=True) * v)
        return torch.as_tensor(self.output(y * (torch.sigmoid(g @ self.g1) @ self.g2)))

    def _keys(self, k: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """What is removed and what is written."""
        return k * self.k_k, k * (1 + (rate - 1) * self.k_a)

    def _value(self, x: Tensor, run: Run) -> Tensor:
        """Drawn towards the first layer's, which that layer leaves beside the run."""
        v = self.value(x)
        first = run.beside.setdefault("first_value", v)
        return torch.as_tensor(torch.lerp(v, first, torch.sigmoid(self.v0 + x @ self.v1 @ self.v2)))


class RWKV7ChannelMixing(Mixer):
    """`value(relu(key(k_t))^2)`, where k is the token mixed with the one before it, feature by feature (section
    4.2)."""

    Config = RWKV7ChannelMixingConfig

    def __init__(self, d_model: int, config: RWKV7ChannelMixingConfig) -> None:
        super().__init__()
        d_hidden = config.d_hidden or 4 * d_model
        self.x_k = nn.Parameter(1 - newest_share(d_model, (1 - config.depth) ** 4))
        self.key = nn.Linear(d_model, d_hidden, bias=False)
        self.value = silent(d_hidden, d_model)
        self.state_spec = {"shift_state": TensorSpec((d_model,), "activation")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        before = run(token_shift, x, state="shift_state")
        return torch.as_tensor(self.value(torch.relu(self.key(torch.lerp(x, before, self.x_k))).square()))


def _linear(features: int, scale: float) -> nn.Linear:
    linear = nn.Linear(features, features, bias=False)
    nn.init.uniform_(linear.weight, -scale * features**-0.5, scale * features**-0.5)
    return linear


def _low_rank(features: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Two factors whose product starts at nothing."""
    second = nn.init.orthogonal_(torch.empty(rank, features), gain=0.1)
    return nn.Parameter(torch.zeros(features, rank)), nn.Parameter(second)
