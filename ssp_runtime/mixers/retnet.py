"""RetNet (Sun et al., 2023, "Retentive Network: A Successor to Transformer for Large Language Models")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention, position
from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.heads import expanded, head_dim, merged, split
from ssp_runtime.mixers.rotary import rotate, turned
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class RetNetConfig:
    """Keys have `d_model * expand_k` features over all heads, values `d_model * expand_v`.

    `rotary` "retnet" turns neighbours, the slowest of them by 1 / 10000 a token; "rope" turns pairs half a head apart,
    as RoFormer does. The norm cancels what `normalize_scores` divides by, but for its eps.
    """

    kind: Literal["retnet"] = "retnet"
    num_heads: Positive = 4
    expand_k: PositiveReal = 1.0
    expand_v: PositiveReal = 2.0
    rotary: Literal["retnet", "rope"] = "retnet"
    normalize_scores: bool = True
    output_gate: bool = True
    norm_weight: bool = False
    norm_eps: PositiveReal = 1e-6


class RetNet(Mixer):
    """`S_n = gamma S_{n-1} + k_n v_n^T`, `y_n = out_proj(norm(S_n^T q_n) * silu(g_n))`, where head h has the decay
    `gamma = 1 - 2^(-5-h)`, and q and k are turned by their position (equations 6 and 8).

    Outputs are divided by the root of the sum of decays up to them (section 2.2, score normalization). The norm of a
    head has a weight, the product a gate g, only if the configuration says so.
    """

    Config = RetNetConfig

    def __init__(self, d_model: int, config: RetNetConfig) -> None:
        super().__init__()
        self.config, self.num_heads = config, config.num_heads
        d_key = expanded(d_model, config.expand_k, "expand_k")
        d_value = expanded(d_model, config.expand_v, "expand_v")
        keys, values = head_dim(d_key, config.num_heads), head_dim(d_value, config.num_heads)
        if keys % 2:
            raise ValueError(f"pairs of features are turned; {keys} per head is odd: change num_heads or d_model")
        self.q_proj = nn.Linear(d_model, d_key, bias=False)
        self.k_proj = nn.Linear(d_model, d_key, bias=False)
        self.v_proj = nn.Linear(d_model, d_value, bias=False)
        self.g_proj = nn.Linear(d_model, d_value, bias=False) if config.output_gate else None
        self.g_norm = nn.RMSNorm(values, eps=config.norm_eps, elementwise_affine=config.norm_weight)
        self.out_proj = nn.Linear(d_value, d_model, bias=False)
        self.state_spec = {
            "position": TensorSpec((), "index"),
            "recurrent_state": TensorSpec((config.num_heads, keys, values), "accumulator"),
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        q, k, v = (split(proj(x), self.num_heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        positions = run(position, x, state="position")
        log_decay = self._log_decay(x.device)
        q, k = self._turned(q, positions), self._turned(k, positions) * k.shape[-1] ** -0.5
        if self.config.normalize_scores:
            q = q / _decays_so_far(log_decay, positions).sqrt()[..., None].to(q.dtype)
        y = run(linear_attention, q, k, v, log_decay[:, None], None, state="recurrent_state")
        y = merged(self.g_norm(y))
        return torch.as_tensor(self.out_proj(y if self.g_proj is None else y * F.silu(self.g_proj(x))))

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        return rotate(x, positions) if self.config.rotary == "rope" else _turned(x, positions)

    def _log_decay(self, device: torch.device) -> Tensor:
        heads_H = torch.arange(self.num_heads, dtype=torch.float64, device=device)
        return torch.log1p(-(2 ** (-5 - heads_H)))


def _turned(x: Tensor, positions: Tensor) -> Tensor:
    """Pairs of neighbours turned by `position * 10000^(-n / (K/2 - 1))`, whose slowest is always 1 / 10000."""
    frequencies = 10_000 ** -torch.linspace(0, 1, x.shape[-1] // 2, dtype=torch.float64, device=x.device)
    angles = positions[..., None, None] * frequencies
    return turned(x, angles, "neighbours")


def _decays_so_far(log_decay_H: Tensor, positions: Tensor) -> Tensor:
    """`1 + gamma + ... + gamma^position` (..., H)."""
    return torch.expm1((positions[..., None] + 1) * log_decay_H) / torch.expm1(log_decay_H)
