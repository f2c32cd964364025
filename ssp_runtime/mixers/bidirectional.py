"""Layers that read a sequence in both directions. They need all of it, so they have no step form.

The thesis is Ulbaek, 2024, "Deep Learning with State Spaces for Efficient Sequence Modeling".
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels.padding import masked
from ssp_runtime.mixers.base import (
    AnyMixerConfig,
    Coefficients,
    Mixer,
    Positive,
    Probability,
    SequenceLayer,
    reversed_in_length,
)
from ssp_runtime.mixers.dropout import FeatureDropout
from ssp_runtime.mixers.mamba import ConvolvedSSP, gated
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.mixers.simple import mixed
from ssp_runtime.mixers.state_space import StateSpace
from ssp_runtime.run import ParallelRun


@dataclass(frozen=True, kw_only=True)
class BidirectionalConfig:
    kind: Literal["bidirectional"] = "bidirectional"
    ssp: AnyMixerConfig = field(default_factory=S6Config)


@dataclass(frozen=True, kw_only=True)
class TwoSidedConfig:
    kind: Literal["two_sided"] = "two_sided"
    ssp: AnyMixerConfig = field(default_factory=S4DConfig)


@dataclass(frozen=True, kw_only=True)
class BidirectionalMambaConfig:
    kind: Literal["bidirectional_mamba"] = "bidirectional_mamba"
    ssp: AnyMixerConfig = field(default_factory=S6Config)
    expand: Positive = 2
    d_conv: Positive = 4


@dataclass(frozen=True, kw_only=True)
class WholeMambaConfig:
    kind: Literal["whole_mamba"] = "whole_mamba"
    ssp: AnyMixerConfig = field(default_factory=BidirectionalConfig)
    expand: Positive = 2
    d_conv: Positive = 4


@dataclass(frozen=True, kw_only=True)
class WholeSimpleConfig:
    kind: Literal["whole_simple"] = "whole_simple"
    ssp: AnyMixerConfig = field(default_factory=TwoSidedConfig)
    dropout: Probability = 0.0


class Bidirectional(SequenceLayer):
    """The sum of two causal layers of a kind, one of them on the reversed sequence."""

    Config = BidirectionalConfig

    def __init__(self, width: int, config: BidirectionalConfig) -> None:
        from ssp_runtime.mixers import build_mixer

        super().__init__()
        self.forward_branch = build_mixer(config.ssp, width)
        self.backward_branch = build_mixer(config.ssp, width)

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        del beside  # state spaces have nothing to tell
        return both_ways(x_BLD, lengths_B, self.forward_branch, self.backward_branch)


class TwoSided(SequenceLayer):
    """`y_t = 2 Re(C s_t) + 2 Re(C' r_{t+1}) + D x_t`, where `s_t = Abar s_{t-1} + Bbar x_t` comes from the past and
    `r_t = Abar r_{t+1} + Bbar x_t` from the future: a time-invariant state space as a convolution with a kernel on both
    sides (the bidirectional form of the published S4 code; `paper_bi` in that of the thesis)."""

    Config = TwoSidedConfig

    def __init__(self, d_inner: int, config: TwoSidedConfig) -> None:
        from ssp_runtime.mixers import build_mixer

        super().__init__()
        ssp = build_mixer(config.ssp, d_inner)
        if not isinstance(ssp, StateSpace):
            raise ValueError(f"two_sided wants a time-invariant state space such as s4d, not {config.ssp.kind}")
        self.ssp = ssp
        self.future: Coefficients = FutureCoefficients(ssp)

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        del beside
        *matrices, _ = self.ssp.coefficients()
        x_reversed_BLD = reversed_in_length(masked(x_BLD, lengths_B), lengths_B)
        run = ParallelRun(self.ssp.initial_state(x_BLD.shape[0], like=x_BLD))
        y_BLD = run(self.ssp.operator, x_reversed_BLD, *matrices, *self.future(), state="ssm_state")
        without_itself_BLD = F.pad(y_BLD, (0, 0, 1, 0))[:, :-1]
        return self.ssp.encode(x_BLD, lengths_B) + reversed_in_length(without_itself_BLD, lengths_B)


class FutureCoefficients(Coefficients):
    """C', which starts as C does."""

    def __init__(self, ssp: StateSpace) -> None:
        super().__init__()
        self.C = nn.Parameter(torch.randn(ssp.state_spec["ssm_state"].shape) * 0.5**0.5)

    def forward(self) -> tuple[Tensor, ...]:
        return (self.C,)


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
        del beside

        def branches(u_BLI: Tensor) -> Tensor:
            return both_ways(u_BLI, lengths_B, self.forward_branch, self.backward_branch)

        return gated(x_BLD, self.in_proj, branches, self.out_proj)


class WholeMamba(SequenceLayer):
    """The Mamba block with a state space that reads both ways behind its causal convolution. The thesis' code does
    this where its figure 16 shows a convolution for each direction."""

    Config = WholeMambaConfig

    def __init__(self, d_model: int, config: WholeMambaConfig) -> None:
        from ssp_runtime.mixers import build_layer

        super().__init__()
        d_inner = config.expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = ShortConvolution(d_inner, config.d_conv)
        self.ssp = build_layer(config.ssp, d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        def inner(u_BLI: Tensor) -> Tensor:
            return self.ssp.encode(F.silu(self.conv1d.encode(u_BLI, lengths_B)), lengths_B, beside)

        return gated(x_BLD, self.in_proj, inner, self.out_proj)


class WholeSimple(SequenceLayer):
    """The Simple block with a state space that reads both ways: the classifier of the S4 papers."""

    Config = WholeSimpleConfig

    def __init__(self, d_model: int, config: WholeSimpleConfig) -> None:
        from ssp_runtime.mixers import build_layer

        super().__init__()
        self.ssp = build_layer(config.ssp, d_model)
        self.dropout = FeatureDropout(config.dropout)
        self.output_linear = nn.Linear(d_model, 2 * d_model)

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        return mixed(self.ssp.encode(x_BLD, lengths_B, beside), self.dropout, self.output_linear)


def both_ways(x_BLD: Tensor, lengths_B: Tensor | None, ahead: Mixer, behind: Mixer) -> Tensor:
    """`ahead` on the sequence plus `behind` on the reversed one, both in the order of the tokens."""
    y_BLD = behind.encode(reversed_in_length(x_BLD, lengths_B), lengths_B)
    return ahead.encode(x_BLD, lengths_B) + reversed_in_length(y_BLD, lengths_B)
