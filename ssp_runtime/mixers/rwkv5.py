"""RWKV-5, "Eagle" (Peng et al., 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence"): time
mixing. Its channel mixing is RWKV-4's. Parameters are named and stored as in the published code."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention, token_shift
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive, PositiveReal
from ssp_runtime.mixers.heads import head_dim, merged, split
from ssp_runtime.mixers.norms import GroupLayerNorm
from ssp_runtime.mixers.rwkv import Depth, log_rates, matrix_state_bonus, newest_share, silent
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec

Version = Literal["5.0", "5.1", "5.2"]


@dataclass(frozen=True, kw_only=True)
class RWKV5Config:
    """Version 5.2 has a decay and a bonus for every feature of a key, 5.1 one for a head, 5.0 also lacks the gate.

    `group_norm_eps` is 64e-5 in the published code, 1e-5 where heads were normalized without dividing by 8 first.
    """

    kind: Literal["rwkv5"] = "rwkv5"
    num_heads: Positive = 4
    version: Version = "5.2"
    group_norm_eps: PositiveReal = 64e-5
    depth: Depth = 0.0


class RWKV5(Mixer):
    """Time mixing: `S_t = diag(w) S_{t-1} + k_t v_t^T`, `y_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t` for each head, then
    `output(norm(y_t) * silu(g_t))`, where r, k, v, g are projections of the token mixed with the one before it, feature
    by feature (section 4.1)."""

    Config = RWKV5Config

    def __init__(self, d_model: int, config: RWKV5Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        per_head = head_dim(d_model, config.num_heads)
        power = 1 - config.depth
        self.coefficients: Coefficients = RWKV5Coefficients(config, per_head)
        self.time_mix_k = nn.Parameter(newest_share(d_model, power))
        self.time_mix_v = nn.Parameter(newest_share(d_model, power) + 0.3 * config.depth)
        self.time_mix_r = nn.Parameter(newest_share(d_model, power / 2))
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.gate = None
        if config.version != "5.0":
            self.time_mix_g = nn.Parameter(newest_share(d_model, power / 2))
            self.gate = nn.Linear(d_model, d_model, bias=False)
        self.ln_x = GroupLayerNorm(d_model, config.num_heads, config.group_norm_eps, bias=True)
        self.output = silent(d_model, d_model)
        self.state_spec = {
            "shift_state": TensorSpec((d_model,), "activation"),
            "wkv_state": TensorSpec((config.num_heads, per_head, per_head), "accumulator"),
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        before = run(token_shift, x, state="shift_state")
        k = self.key(torch.lerp(before, x, self.time_mix_k))
        v = self.value(torch.lerp(before, x, self.time_mix_v))
        r = self.receptance(torch.lerp(before, x, self.time_mix_r))
        heads = (split(t, self.num_heads) for t in (r, k, v))
        y = self.ln_x(merged(run(linear_attention, *heads, *self.coefficients(), state="wkv_state")))
        if self.gate is not None:
            y = y * F.silu(self.gate(torch.lerp(before, x, self.time_mix_g)))
        return torch.as_tensor(self.output(y))


class RWKV5Coefficients(Coefficients):
    """Logarithm of the decay, `-exp(time_decay)`, (H, K) or (H, 1), and bonus (H, K): `time_faaaa`, or in version 5.0
    `exp(time_first)`."""

    def __init__(self, config: RWKV5Config, per_head: int) -> None:
        super().__init__()
        self.num_heads, self.per_head = config.num_heads, per_head
        self.version = config.version
        count = config.num_heads * (per_head if config.version == "5.2" else 1)
        bonus = nn.Parameter(matrix_state_bonus(count, config.depth))
        self.time_decay = nn.Parameter(log_rates(count, -6, -1, config.depth))
        self.register_parameter("time_first" if config.version == "5.0" else "time_faaaa", bonus)

    def forward(self) -> tuple[Tensor, ...]:
        stored = self.get_parameter("time_first" if self.version == "5.0" else "time_faaaa")
        bonus: Tensor = stored.exp() if self.version == "5.0" else stored
        bonus_HK = bonus.view(self.num_heads, -1).expand(-1, self.per_head)
        return -torch.exp(self.time_decay).view(self.num_heads, -1), bonus_HK
