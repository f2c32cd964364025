"""The Mamba block's inside, around any state space (Gu and Dao, 2023, figure 3; thesis, figures 15 and 16)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels.causal_conv1d import causal_conv1d, causal_conv1d_step
from ssp_runtime.mixers.base import AnyMixerConfig, Mixer, Positive, SequenceLayer, masked, reversed_in_length
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.state import State, TensorSpec, select


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    kind: Literal["mamba"] = "mamba"
    ssp: AnyMixerConfig = field(default_factory=S6Config)
    expand: Positive = 2
    d_conv: Positive = 4


@dataclass(frozen=True, kw_only=True)
class BidirectionalMambaConfig:
    kind: Literal["bidirectional_mamba"] = "bidirectional_mamba"
    ssp: AnyMixerConfig = field(default_factory=S6Config)
    expand: Positive = 2
    d_conv: Positive = 4


class ConvolvedSSP(Mixer):
    """Short causal convolution, SiLU, state space: what lies between the Mamba block's two projections."""

    def __init__(self, d_inner: int, d_conv: int, ssp: AnyMixerConfig) -> None:
        from ssp_runtime.mixers import build_mixer

        super().__init__()
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1)
        self.ssp = build_mixer(ssp, d_inner)
        self.state_spec = {"conv_state": TensorSpec((d_inner, d_conv - 1), "activation"), **self.ssp.state_spec}

    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        x_BLD = masked(x_BLD, lengths_B)
        u_BLD, conv_state = causal_conv1d(x_BLD, *self._taps(), state["conv_state"], lengths_B)
        y_BLD, ssp_state = self.ssp(F.silu(u_BLD), select(state, self.ssp.state_spec), lengths_B=lengths_B)
        return y_BLD, {"conv_state": conv_state, **ssp_state}

    def step(self, x_BD: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        u_BD, conv_state = causal_conv1d_step(
            x_BD, *self._taps(), state["conv_state"], None if out is None else out["conv_state"]
        )
        y_BD, ssp_state = self.ssp.step(F.silu(u_BD), select(state, self.ssp.state_spec), out=out)
        return y_BD, {"conv_state": conv_state, **ssp_state}

    def _taps(self) -> tuple[Tensor, Tensor | None]:
        return self.conv1d.weight[:, 0], self.conv1d.bias


class Mamba(Mixer):
    """`out_proj(ssp(silu(conv(x))) * silu(z))` with `x, z = in_proj(input)`."""

    Config = MambaConfig

    def __init__(self, d_model: int, config: MambaConfig) -> None:
        super().__init__()
        d_inner = config.expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.inner = ConvolvedSSP(d_inner, config.d_conv, config.ssp)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.state_spec = self.inner.state_spec

    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        x_BLI, z_BLI = self.in_proj(x_BLD).chunk(2, dim=-1)
        y_BLI, state = self.inner(x_BLI, state, lengths_B=lengths_B)
        return self.out_proj(y_BLI * F.silu(z_BLI)), state

    def step(self, x_BD: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        x_BI, z_BI = self.in_proj(x_BD).chunk(2, dim=-1)
        y_BI, state = self.inner.step(x_BI, state, out=out)
        return self.out_proj(y_BI * F.silu(z_BI)), state


class BidirectionalMamba(SequenceLayer):
    """Two branches after `in_proj`, each with its own convolution and state space, one of them on the reversed
    sequence; their sum is gated (thesis, figure 16)."""

    Config = BidirectionalMambaConfig

    def __init__(self, d_model: int, config: BidirectionalMambaConfig) -> None:
        super().__init__()
        d_inner = config.expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.forward_branch = ConvolvedSSP(d_inner, config.d_conv, config.ssp)
        self.backward_branch = ConvolvedSSP(d_inner, config.d_conv, config.ssp)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        x_BLI, z_BLI = self.in_proj(x_BLD).chunk(2, dim=-1)
        ahead_BLI = self.forward_branch.encode(x_BLI, lengths_B)
        behind_BLI = self.backward_branch.encode(reversed_in_length(x_BLI, lengths_B), lengths_B)
        y_BLI = ahead_BLI + reversed_in_length(behind_BLI, lengths_B)
        return torch.as_tensor(self.out_proj(y_BLI * F.silu(z_BLI)))
