"""The Mamba block's inside, around any state space (Gu and Dao, 2023, figure 3; thesis, figures 15 and 16)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import causal_conv1d
from ssp_runtime.mixers.base import AnyMixerConfig, Mixer, Positive, SequenceLayer, reversed_in_length
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


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

    def compute(self, x: Tensor, run: Run) -> Tensor:
        u = run(causal_conv1d, x, self.conv1d.weight[:, 0], self.conv1d.bias, state="conv_state")
        return self.ssp.compute(F.silu(u), run)


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

    def compute(self, x: Tensor, run: Run) -> Tensor:
        u, z = self.in_proj(x).chunk(2, dim=-1)
        return torch.as_tensor(self.out_proj(self.inner.compute(u, run) * F.silu(z)))


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

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        del beside  # its state spaces have nothing to tell
        x_BLI, z_BLI = self.in_proj(x_BLD).chunk(2, dim=-1)
        ahead_BLI = self.forward_branch.encode(x_BLI, lengths_B)
        behind_BLI = self.backward_branch.encode(reversed_in_length(x_BLI, lengths_B), lengths_B)
        y_BLI = ahead_BLI + reversed_in_length(behind_BLI, lengths_B)
        return torch.as_tensor(self.out_proj(y_BLI * F.silu(z_BLI)))
