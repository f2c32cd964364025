"""The Mamba block's inside, around any state space (Gu and Dao, 2023, "Mamba: Linear-Time Sequence Modeling
with Selective State Spaces", figure 3; the thesis has it around S4 and S4D too)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.base import AnyMixerConfig, Mixer, Positive
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.run import Run


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """`bias` is that of the two projections, `conv_bias` that of the short convolution."""

    kind: Literal["mamba"] = "mamba"
    ssp: AnyMixerConfig = field(default_factory=S6Config)
    expand: Positive = 2
    d_conv: Positive = 4
    bias: bool = False
    conv_bias: bool = True


class ConvolvedSSP(Mixer):
    """Short convolution, SiLU, state space: what lies between the Mamba block's two projections."""

    def __init__(self, d_inner: int, d_conv: int, ssp: AnyMixerConfig, *, conv_bias: bool = True) -> None:
        from ssp_runtime.mixers import build_mixer

        super().__init__()
        self.conv1d = ShortConvolution(d_inner, d_conv, bias=conv_bias)
        self.ssp = build_mixer(ssp, d_inner)
        self.state_spec = {**self.conv1d.state_spec, **self.ssp.state_spec}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return self.ssp.compute(F.silu(self.conv1d.compute(x, run)), run)


class Mamba(Mixer):
    """`out_proj(ssp(silu(conv(x))) * silu(z))` with `x, z = in_proj(input)`."""

    Config = MambaConfig

    def __init__(self, d_model: int, config: MambaConfig) -> None:
        super().__init__()
        d_inner = config.expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=config.bias)
        self.inner = ConvolvedSSP(d_inner, config.d_conv, config.ssp, conv_bias=config.conv_bias)
        self.out_proj = nn.Linear(d_inner, d_model, bias=config.bias)
        self.state_spec = self.inner.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return gated(x, self.in_proj, lambda u: self.inner.compute(u, run), self.out_proj)


def gated(x: Tensor, in_proj: nn.Linear, inner: Callable[[Tensor], Tensor], out_proj: nn.Linear) -> Tensor:
    """`out_proj(inner(u) * silu(z))` with `u, z = in_proj(x)`: the Mamba block around anything."""
    u, z = in_proj(x).chunk(2, dim=-1)
    return torch.as_tensor(out_proj(inner(u) * F.silu(z)))
