"""Mamba-2 (Dao and Gu, 2024, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured
State Space Duality")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive, PositiveReal
from ssp_runtime.mixers.decay_gate import HeadRates
from ssp_runtime.mixers.heads import merged, num_heads_of, split
from ssp_runtime.mixers.initialization import inverse_softplus, log_uniform_dt
from ssp_runtime.mixers.norms import GroupRMSNorm
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class Mamba2Config:
    """Each of `n_groups` pairs of B and C serves as many heads. dt is kept within `time_step_limit`, None: anywhere.
    `bias` is that of the two projections, `conv_bias` that of the short convolution."""

    kind: Literal["mamba2"] = "mamba2"
    expand: Positive = 2
    d_conv: Positive = 4
    d_state: Positive = 128
    head_dim: Positive = 64
    n_groups: Positive = 1
    time_step_limit: tuple[float, float] | None = None
    dt_min: float = 0.001
    dt_max: float = 0.1
    bias: bool = False
    conv_bias: bool = True
    norm_eps: PositiveReal = 1e-5

    def __post_init__(self) -> None:
        if self.time_step_limit and not 0 <= self.time_step_limit[0] < self.time_step_limit[1]:
            raise ValueError(f"time_step_limit goes from a least step to a larger one, not {self.time_step_limit}")


class Mamba2(Mixer):
    """`S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T`, `y_t = S_t^T C_t + D x_t`, with one A and one D a head, and
    `out_proj(norm(y * silu(z)))` of that (section 7; the recurrence is equation 2 with A a multiple of the identity).

    One projection makes z, x, B, C and dt; x, B and C go through a short convolution and SiLU.
    """

    Config = Mamba2Config

    def __init__(self, d_model: int, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        d_inner, d_shared = config.expand * d_model, config.n_groups * config.d_state
        num_heads = num_heads_of(d_inner, config.head_dim, "head_dim")
        if num_heads % config.n_groups:
            raise ValueError(f"{num_heads} heads cannot share {config.n_groups} groups; choose n_groups that divides")
        d_conv_inner = d_inner + 2 * d_shared
        self.in_sizes, self.conv_sizes = [d_inner, d_conv_inner, num_heads], [d_inner, d_shared, d_shared]
        self.in_proj = nn.Linear(d_model, sum(self.in_sizes), bias=config.bias)
        self.conv1d = ShortConvolution(d_conv_inner, config.d_conv, bias=config.conv_bias)
        self.dt_bias = nn.Parameter(inverse_softplus(log_uniform_dt(num_heads, config.dt_min, config.dt_max)))
        self.coefficients: Coefficients = HeadRates(num_heads)
        self.D = nn.Parameter(torch.ones(num_heads))
        self.norm = GroupRMSNorm(d_inner, config.n_groups, eps=config.norm_eps)
        self.out_proj = nn.Linear(d_inner, d_model, bias=config.bias)
        self.state_spec = {
            **self.conv1d.state_spec,
            "ssm_state": TensorSpec((num_heads, config.d_state, config.head_dim), "accumulator"),
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        z, u, dt = self.in_proj(x).split(self.in_sizes, dim=-1)
        u = F.silu(self.conv1d.compute(u, run))
        x, B, C = torch.split(u, self.conv_sizes, dim=-1)
        y = self._ssm(x, B, C, self._dt(dt), run)
        return torch.as_tensor(self.out_proj(self.norm(y * F.silu(z))))

    def _dt(self, dt: Tensor) -> Tensor:
        dt = F.softplus(dt + self.dt_bias)
        return dt if self.config.time_step_limit is None else dt.clamp(*self.config.time_step_limit)

    def _ssm(self, x: Tensor, B: Tensor, C: Tensor, dt: Tensor, run: Run) -> Tensor:
        (A,) = self.coefficients()
        x, dt = split(x, len(A)), dt[..., None]
        heads_of_a_group = len(A) // self.config.n_groups
        B, C = (split(t, self.config.n_groups).repeat_interleave(heads_of_a_group, dim=-2) for t in (B, C))
        y = run(linear_attention, C, B, dt * x, dt * A[:, None], None, state="ssm_state")
        return merged(y + self.D[:, None] * x)
