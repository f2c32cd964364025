"""S6, the selective state space (Gu and Dao, 2023, "Mamba: Linear-Time Sequence Modeling with Selective State
Spaces")."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import selective_scan
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive, PositiveReal
from ssp_runtime.mixers.initialization import inverse_softplus, log_uniform_dt
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class S6Config:
    """`dt_rank` None means ceil(d_inner / 32): d_model / 16 in a block that expands twofold. With `norm_eps` dt, B and
    C each go through an RMS norm without weights (Falcon Mamba)."""

    kind: Literal["s6"] = "s6"
    d_state: Positive = 16
    dt_rank: Positive | None = None
    dt_min: float = 0.001
    dt_max: float = 0.1
    norm_eps: PositiveReal | None = None


class S6(Mixer):
    """`s_t = exp(dt_t A) s_{t-1} + dt_t B_t x_t`, `y_t = C_t s_t + D x_t`, with dt, B, C linear in x (algorithm 2)."""

    Config = S6Config

    def __init__(self, d_inner: int, config: S6Config) -> None:
        super().__init__()
        self.norm_eps = config.norm_eps
        self.dt_rank = config.dt_rank or math.ceil(d_inner / 32)
        self.selection_sizes = [self.dt_rank, config.d_state, config.d_state]
        self.x_proj = nn.Linear(d_inner, sum(self.selection_sizes), bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner)
        self.coefficients: Coefficients = S6Coefficients(d_inner, config.d_state)
        self.D = nn.Parameter(torch.ones(d_inner))
        self.state_spec = {"ssm_state": TensorSpec((d_inner, config.d_state), "accumulator")}
        self._initialize_dt(config)

    def _initialize_dt(self, config: S6Config) -> None:
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        dt = log_uniform_dt(self.dt_proj.out_features, config.dt_min, config.dt_max)
        with torch.no_grad():
            self.dt_proj.bias.copy_(inverse_softplus(dt))

    def compute(self, x: Tensor, run: Run) -> Tensor:
        dt, B, C = self.x_proj(x).split(self.selection_sizes, dim=-1)
        return self.scan(x, dt, B, C, run)

    def scan(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, run: Run) -> Tensor:
        """The recurrence over x, with dt still in its low rank."""
        if self.norm_eps is not None:
            dt, B, C = (F.rms_norm(t, t.shape[-1:], eps=self.norm_eps) for t in (dt, B, C))
        dt = F.softplus(self.dt_proj(dt))
        return run(selective_scan, x, dt, *self.coefficients(), B, C, state="ssm_state") + self.D * x


class S6Coefficients(Coefficients):
    """`A = -exp(A_log)` (D, N), which starts at -1 ... -N."""

    def __init__(self, d_inner: int, d_state: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.log(torch.arange(1, d_state + 1.0)).repeat(d_inner, 1))

    def forward(self) -> tuple[Tensor, ...]:
        return (-torch.exp(self.A_log),)
