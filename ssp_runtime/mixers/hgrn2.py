"""HGRN2 (Qin et al., 2024, "HGRN2: Gated Linear RNNs with State Expansion")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention
from ssp_runtime.mixers.base import Mixer, Positive
from ssp_runtime.mixers.heads import merged, num_heads_of, split
from ssp_runtime.mixers.lower_bound import Bound, LowerBound
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class HGRN2Config:
    """Each feature has `expand_ratio` states, which are shared by a head of so many features. For `lower_bound` see
    HGRN."""

    kind: Literal["hgrn2"] = "hgrn2"
    expand_ratio: Positive = 128
    lower_bound: Bound = 0.0


class HGRN2(Mixer):
    """`S_t = diag(f_t) S_{t-1} + (1 - f_t) i_t^T`, `y_t = out_proj(norm(S_t^T silu(q_t) / sqrt(K)))`, where the forget
    gate `f = lower_bound + (1 - lower_bound) sigmoid` is bounded from below (section 3).

    The root of K = expand_ratio is that of published code; the norm cancels it but for its eps.
    """

    Config = HGRN2Config

    def __init__(self, d_model: int, config: HGRN2Config) -> None:
        super().__init__()
        self.num_heads = num_heads_of(d_model, config.expand_ratio, "expand_ratio")
        self.lower_bound = LowerBound(config.lower_bound, d_model)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.f_proj = nn.Linear(d_model, d_model, bias=False)
        self.i_proj = nn.Linear(d_model, d_model, bias=False)
        self.g_norm = nn.RMSNorm(d_model, eps=1e-5)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        self.state_spec = {
            "recurrent_state": TensorSpec((self.num_heads, config.expand_ratio, config.expand_ratio), "accumulator")
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        forget = self.f_proj(x)
        bound = self.lower_bound(forget)
        written = (1 - bound) * torch.sigmoid(-forget)
        sequences = (F.silu(self.q_proj(x)), written, self.i_proj(x), _log_decay(bound, forget))
        q, k, v, log_decay = (split(t, self.num_heads) for t in sequences)
        y = run(linear_attention, q * q.shape[-1] ** -0.5, k, v, log_decay, None, state="recurrent_state")
        return torch.as_tensor(self.out_proj(self.g_norm(merged(y))))


def _log_decay(bound: Tensor, forget: Tensor) -> Tensor:
    """A sum of logarithms, so that a gate near 0 keeps its own, and its gradient."""
    return torch.logaddexp(bound.log(), torch.log1p(-bound) + F.logsigmoid(forget))
