"""S6 that knows where its tokens stand (the thesis' code, its option `pos_emb`)."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import position
from ssp_runtime.mixers.base import Coefficients, Mixer, Positive, PositiveReal
from ssp_runtime.mixers.rotary import turned
from ssp_runtime.mixers.s6 import S6, S6Config
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec

Reader = Literal["dt", "B", "C", "x"]
READERS: tuple[Reader, ...] = ("dt", "B", "C", "x")


@dataclass(frozen=True, kw_only=True)
class RotaryS6Config:
    """`turned` names what reads turned inputs: the projections to dt, B and C, and the recurrence itself (x).

    The fastest pair of features starts with 1 radian a token; with `l_train`, the length trained on, with half a turn
    over so many tokens. Positions begin again at 0 every `period` tokens, which may be the rows of an image.
    """

    kind: Literal["rotary_s6"] = "rotary_s6"
    ssp: S6Config = field(default_factory=S6Config)
    turned: tuple[Reader, ...] = ("B", "C")
    base: PositiveReal = 10_000.0
    l_train: Positive | None = None
    period: Positive | None = None


class RotaryS6(Mixer):
    """S6 with some of dt, B, C and x taken from inputs x_t whose n-th pair of neighbouring features is turned by
    `t frequency_n` (Su et al., 2021, "RoFormer", equation 34)."""

    Config = RotaryS6Config

    def __init__(self, d_inner: int, config: RotaryS6Config) -> None:
        super().__init__()
        self.config = config
        self.ssp = S6(d_inner, config.ssp)
        self.rotation: Coefficients = Rotation(d_inner, config.base, config.l_train)
        self.state_spec = {**self.ssp.state_spec, "position": TensorSpec((), "index")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        x_turned = self._turned(x, run(position, x, state="position"))
        *selecting, x = (x_turned if reader in self.config.turned else x for reader in READERS)
        weights = torch.split(self.ssp.x_proj.weight, self.ssp.selection_sizes)
        dt, B, C = (F.linear(source, weight) for source, weight in zip(selecting, weights, strict=True))
        return self.ssp.scan(x, dt, B, C, run)

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        """Angles are computed in float64: float32 is 0.03 rad off at a position of a million."""
        (frequencies,) = self.rotation()
        t = positions if self.config.period is None else positions % self.config.period
        angles = t[..., None] * frequencies.double()
        return turned(x, angles, "neighbours")


class Rotation(Coefficients):
    """Radians a token for each pair of features, which start at `base^(-2n / D)`, times `pi / l_train` if given."""

    def __init__(self, width: int, base: float, l_train: int | None) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"rotary embedding turns pairs of features; {width} is odd: choose an even width")
        fastest = 1.0 if l_train is None else math.pi / l_train
        self.frequencies = nn.Parameter(fastest * base ** (-2 * torch.arange(width // 2) / width))

    def forward(self) -> tuple[Tensor, ...]:
        return (self.frequencies,)
