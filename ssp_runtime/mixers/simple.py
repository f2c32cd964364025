"""The Simple block's inside: a state space, GELU, and a gated linear unit over the features (Gu et al., 2022,
"Efficiently Modeling Long Sequences with Structured State Spaces", section 3.4 and appendix D.3.2; the thesis)."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.base import AnyMixerConfig, Mixer, Probability
from ssp_runtime.mixers.dropout import FeatureDropout
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.run import Run


@dataclass(frozen=True, kw_only=True)
class SimpleConfig:
    kind: Literal["simple"] = "simple"
    ssp: AnyMixerConfig = field(default_factory=S4DConfig)
    dropout: Probability = 0.0


class Simple(Mixer):
    """`glu(output_linear(gelu(ssp(x))))`."""

    Config = SimpleConfig

    def __init__(self, d_model: int, config: SimpleConfig) -> None:
        from ssp_runtime.mixers import build_mixer

        super().__init__()
        self.ssp = build_mixer(config.ssp, d_model)
        self.dropout = FeatureDropout(config.dropout)
        self.output_linear = nn.Linear(d_model, 2 * d_model)
        self.state_spec = self.ssp.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return mixed(self.ssp.compute(x, run), self.dropout, self.output_linear)


def mixed(y: Tensor, dropout: FeatureDropout, output_linear: nn.Linear) -> Tensor:
    """What follows the state space."""
    return F.glu(output_linear(F.gelu(dropout(y))), dim=-1)
