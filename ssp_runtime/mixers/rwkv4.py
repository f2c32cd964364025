"""RWKV-4 (Peng et al., 2023, "RWKV: Reinventing RNNs for the Transformer Era"): time mixing and channel mixing.

Parameters are named and stored as in the published code.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_kernels import token_shift, wkv
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive
from ssp_runtime.mixers.rwkv import Depth, log_rates, newest_share, silent, zigzag
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class RWKV4Config:
    """`depth` is where parameters start; a trained model does not depend on it."""

    kind: Literal["rwkv4"] = "rwkv4"
    depth: Depth = 0.0


@dataclass(frozen=True, kw_only=True)
class RWKV4ChannelMixingConfig:
    """`d_hidden` None means 4 times the width."""

    kind: Literal["rwkv4_channel_mixing"] = "rwkv4_channel_mixing"
    d_hidden: Positive | None = None
    depth: Depth = 0.0


class RWKV4(Mixer):
    """Time mixing: `output(sigmoid(r_t) * wkv_t)`, where wkv averages the values v with weights `exp(k)` that decay,
    `exp(bonus + k_t)` for the newest, and r, k, v are projections of the token mixed with the one before it, feature by
    feature (section 3.1)."""

    Config = RWKV4Config

    def __init__(self, d_model: int, config: RWKV4Config) -> None:
        super().__init__()
        self.coefficients: Coefficients = RWKV4Coefficients(d_model, config.depth)
        power = 1 - config.depth
        self.time_mix_k = nn.Parameter(newest_share(d_model, power))
        self.time_mix_v = nn.Parameter(newest_share(d_model, power) + 0.3 * config.depth)
        self.time_mix_r = nn.Parameter(newest_share(d_model, power / 2))
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.output = silent(d_model, d_model)
        self.state_spec = {
            "shift_state": TensorSpec((d_model,), "activation"),
            "wkv_state": TensorSpec((d_model,), "accumulator"),
            "normalizer_state": TensorSpec((d_model,), "accumulator"),
            "stabilizer_state": TensorSpec((d_model,), "accumulator", init=-math.inf),
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        before = run(token_shift, x, state="shift_state")
        k = self.key(torch.lerp(before, x, self.time_mix_k))
        v = self.value(torch.lerp(before, x, self.time_mix_v))
        r = self.receptance(torch.lerp(before, x, self.time_mix_r))
        states = ("wkv_state", "normalizer_state", "stabilizer_state")
        return torch.as_tensor(self.output(torch.sigmoid(r) * run(wkv, k, v, *self.coefficients(), state=states)))


class RWKV4Coefficients(Coefficients):
    """Logarithms of the decay, `-exp(time_decay)`, and of the bonus, `time_first` (D,)."""

    def __init__(self, d_model: int, depth: float) -> None:
        super().__init__()
        self.time_decay = nn.Parameter(log_rates(d_model, -5, 3, depth))
        self.time_first = nn.Parameter(math.log(0.3) + 0.5 * zigzag(d_model))

    def forward(self) -> tuple[Tensor, ...]:
        return -torch.exp(self.time_decay), self.time_first


class RWKV4ChannelMixing(Mixer):
    """`sigmoid(receptance(r_t)) * value(relu(key(k_t))^2)`, where r and k are the token mixed with the one before it,
    feature by feature (section 3.1)."""

    Config = RWKV4ChannelMixingConfig

    def __init__(self, d_model: int, config: RWKV4ChannelMixingConfig) -> None:
        super().__init__()
        d_hidden = config.d_hidden or 4 * d_model
        self.time_mix_k = nn.Parameter(newest_share(d_model, 1 - config.depth))
        self.time_mix_r = nn.Parameter(newest_share(d_model, 1 - config.depth))
        self.key = nn.Linear(d_model, d_hidden, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.value = silent(d_hidden, d_model)
        self.state_spec = {"shift_state": TensorSpec((d_model,), "activation")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        before = run(token_shift, x, state="shift_state")
        hidden = torch.relu(self.key(torch.lerp(before, x, self.time_mix_k))).square()
        r = self.receptance(torch.lerp(before, x, self.time_mix_r))
        return torch.sigmoid(r) * torch.as_tensor(self.value(hidden))
