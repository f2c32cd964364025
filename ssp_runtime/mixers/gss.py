"""GSS, gated state spaces (Mehta et al., 2022, "Long Range Language Modeling via Gated State Spaces")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import lti_ssm
from ssp_kernels.discretization import zero_order_hold
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class GSSConfig:
    """The gate has `expand * d_model` features. The state space runs on `d_ssm` features, None meaning d_model / 4,
    with `d_state` complex modes each."""

    kind: Literal["gss"] = "gss"
    expand: Positive = 4
    d_ssm: Positive | None = None
    d_state: Positive = 512


class GSS(Mixer):
    """`out_proj(gate_proj(ssm(gelu(ssm_proj(x)))) * gelu(in_proj(x)))`: the state space works in few dimensions, the
    gate in many."""

    Config = GSSConfig

    def __init__(self, d_model: int, config: GSSConfig) -> None:
        super().__init__()
        d_inner, d_ssm = config.expand * d_model, config.d_ssm or -(-d_model // 4)
        self.in_proj = nn.Linear(d_model, d_inner, bias=False)
        self.ssm_proj = nn.Linear(d_model, d_ssm, bias=False)
        self.ssm = GSSStateSpace(d_ssm, config.d_state)
        self.gate_proj = nn.Linear(d_ssm, d_inner, bias=False)
        self.out_proj = nn.Linear(d_inner, d_model)
        self.state_spec = self.ssm.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        context = self.gate_proj(self.ssm.compute(F.gelu(self.ssm_proj(x)), run))
        return torch.as_tensor(self.out_proj(context * F.gelu(self.in_proj(x))))


class GSSStateSpace(Mixer):
    """`s_t = Abar s_{t-1} + Bbar u_t`, `y_t = Re(C s_t) + D u_t` with `u = norm(x)`: a diagonal state space with steps
    of 1 and one Lambda for all features, discretized by zero-order hold. Unlike DSS with its softmax it
    depends on no length."""

    def __init__(self, d_ssm: int, modes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_ssm)
        self.coefficients: Coefficients = GSSCoefficients(d_ssm, modes)
        self.D = nn.Parameter(torch.randn(d_ssm))
        self.state_spec = {"ssm_state": TensorSpec((d_ssm, modes, 2), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        u: Tensor = self.norm(x)
        return run(lti_ssm, u, *self.coefficients(), state="ssm_state") + self.D * u


class GSSCoefficients(Coefficients):
    """Abar, Bbar and C / 2 as pairs of reals (D, N, 2), from `Lambda = -exp(Lambda_real) + i exp(Lambda_imag)`.

    The half is because `lti_ssm` counts each mode twice, itself and its conjugate.
    """

    def __init__(self, d_ssm: int, modes: int) -> None:
        super().__init__()
        self.Lambda_real = nn.Parameter(torch.randn(modes))
        self.Lambda_imag = nn.Parameter(torch.randn(modes))
        self.C_real = nn.Parameter(torch.randn(d_ssm, modes))
        self.C_imag = nn.Parameter(torch.randn(d_ssm, modes))

    def forward(self) -> tuple[Tensor, ...]:
        Lambda_N = torch.complex(-torch.exp(self.Lambda_real), torch.exp(self.Lambda_imag))
        B_DN, dt = torch.ones_like(self.C_real), torch.ones_like(self.Lambda_real)
        Abar_N, Bbar_DN = zero_order_hold(Lambda_N, B_DN, dt)
        C_DN2 = torch.stack([self.C_real, self.C_imag], dim=-1) / 2
        return torch.view_as_real(Abar_N).expand_as(C_DN2), torch.view_as_real(Bbar_DN), C_DN2
