"""RWKV-6, "Finch" (Peng et al., 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence"): time
mixing and channel mixing. Parameters are named and stored as in the published code."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention, token_shift
from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.heads import expanded, head_dim, merged, split
from ssp_runtime.mixers.norms import GroupLayerNorm
from ssp_runtime.mixers.rwkv import Depth, log_rates, matrix_state_bonus, newest_share, silent
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec

PARTS = "wkvrg"  # what has a mixture of its own, in the order of `time_maa_w1` and `time_maa_w2`


@dataclass(frozen=True, kw_only=True)
class RWKV6Config:
    """Ranks are of what depends on the input: the mixtures with the token before, and the decays. Keys have `d_model *
    expand_k` features over all heads, values `d_model * expand_v`."""

    kind: Literal["rwkv6"] = "rwkv6"
    num_heads: Positive = 4
    expand_k: PositiveReal = 1.0
    expand_v: PositiveReal = 1.0
    mix_rank: Positive = 32
    decay_rank: Positive = 64
    group_norm_eps: PositiveReal = 64e-5
    depth: Depth = 0.0


@dataclass(frozen=True, kw_only=True)
class RWKV6ChannelMixingConfig:
    """`d_hidden` None means 7/2 of the width."""

    kind: Literal["rwkv6_channel_mixing"] = "rwkv6_channel_mixing"
    d_hidden: Positive | None = None
    depth: Depth = 0.0


class RWKV6(Mixer):
    """Time mixing: RWKV-5's, but the decay `w_t = exp(-exp(time_decay + low rank of the token))` and the shares of the
    token before in r, k, v, g and w depend on the input (section 4.2)."""

    Config = RWKV6Config

    def __init__(self, d_model: int, config: RWKV6Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        d_key = expanded(d_model, config.expand_k, "expand_k")
        d_value = expanded(d_model, config.expand_v, "expand_v")
        keys, values = head_dim(d_key, config.num_heads), head_dim(d_value, config.num_heads)
        self._add_mixtures(d_model, config)
        self.time_decay = nn.Parameter(log_rates(d_key, -6, -1, config.depth))
        self.time_decay_w1 = nn.Parameter(torch.zeros(d_model, config.decay_rank))
        self.time_decay_w2 = nn.Parameter(torch.empty(config.decay_rank, d_key).uniform_(-0.01, 0.01))
        self.time_faaaa = nn.Parameter(matrix_state_bonus(d_key, config.depth))
        self.receptance = nn.Linear(d_model, d_key, bias=False)
        self.key = nn.Linear(d_model, d_key, bias=False)
        self.value = nn.Linear(d_model, d_value, bias=False)
        self.gate = nn.Linear(d_model, d_value, bias=False)
        self.ln_x = GroupLayerNorm(d_value, config.num_heads, config.group_norm_eps, bias=True)
        self.output = silent(d_value, d_model)
        self.state_spec = {
            "shift_state": TensorSpec((d_model,), "activation"),
            "wkv_state": TensorSpec((config.num_heads, keys, values), "accumulator"),
        }

    def _add_mixtures(self, d_model: int, config: RWKV6Config) -> None:
        power = 1 - config.depth
        newest = dict.fromkeys("xwk", newest_share(d_model, power))
        newest |= dict.fromkeys("rg", newest_share(d_model, power / 2))
        newest["v"] = newest["k"] + 0.3 * config.depth
        for part, share in newest.items():
            self.register_parameter(f"time_maa_{part}", nn.Parameter(1 - share))
        self.time_maa_w1 = nn.Parameter(torch.zeros(d_model, len(PARTS) * config.mix_rank))
        self.time_maa_w2 = nn.Parameter(torch.empty(len(PARTS), config.mix_rank, d_model).uniform_(-0.01, 0.01))

    def compute(self, x: Tensor, run: Run) -> Tensor:
        w, k, v, r, g = self._mixtures(x, run(token_shift, x, state="shift_state"))
        log_decay = -torch.exp(self.time_decay + torch.tanh(w @ self.time_decay_w1) @ self.time_decay_w2)
        tensors = (self.receptance(r), self.key(k), self.value(v), log_decay, self.time_faaaa)
        heads = (split(t, self.num_heads) for t in tensors)
        y = self.ln_x(merged(run(linear_attention, *heads, state="wkv_state")))
        return torch.as_tensor(self.output(y * F.silu(self.gate(g))))

    def _mixtures(self, x: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        """The token with shares of the one before, which depend on such a mixture themselves; one for each part."""
        hidden = torch.tanh(torch.lerp(x, before, self.get_parameter("time_maa_x")) @ self.time_maa_w1)
        low_rank = split(hidden, len(PARTS))[..., None, :] @ self.time_maa_w2
        static = torch.stack([self.get_parameter(f"time_maa_{part}") for part in PARTS])
        shares = static + low_rank.squeeze(-2)
        return torch.lerp(x[..., None, :], before[..., None, :], shares).unbind(-2)


class RWKV6ChannelMixing(Mixer):
    """`sigmoid(receptance(r_t)) * value(relu(key(k_t))^2)`, where r and k are the token mixed with the one before it,
    feature by feature (section 4.1)."""

    Config = RWKV6ChannelMixingConfig

    def __init__(self, d_model: int, config: RWKV6ChannelMixingConfig) -> None:
        super().__init__()
        d_hidden = config.d_hidden or round(3.5 * d_model)
        self.time_maa_k = nn.Parameter(1 - newest_share(d_model, 1 - config.depth))
        self.time_maa_r = nn.Parameter(1 - newest_share(d_model, 1 - config.depth))
        self.key = nn.Linear(d_model, d_hidden, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.value = silent(d_hidden, d_model)
        self.state_spec = {"shift_state": TensorSpec((d_model,), "activation")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        before = run(token_shift, x, state="shift_state")
        hidden = torch.relu(self.key(torch.lerp(x, before, self.time_maa_k))).square()
        r = self.receptance(torch.lerp(x, before, self.time_maa_r))
        return torch.sigmoid(r) * torch.as_tensor(self.value(hidden))
