"""The seven laws over all layers and whole models, in every available form of the operators."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import pytest
import torch
from ssp_kernels import causal_conv1d, lti_ssm, registry, selective_scan
from torch import Tensor, nn

from ssp_runtime.mixers import build_mixer
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.mamba import BidirectionalMambaConfig, MambaConfig
from ssp_runtime.mixers.s4d import S4DCoefficients, S4DConfig
from ssp_runtime.mixers.s6 import S6, S6Config
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
)
from ssp_runtime.models.model import CausalBackbone, LanguageModel
from tests.ssp_runtime.laws import LAWS, Fold, Law, Subject

WIDTH = 5
VOCABULARY = 11
OPERATORS = (causal_conv1d.OPERATOR, lti_ssm.OPERATOR, selective_scan.OPERATOR)
KERNELS = ("reference", "torch", "native", *(("triton",) if os.environ.get("TRITON_INTERPRET") else ()))

MIXERS: dict[str, MixerConfig] = {
    "s6": S6Config(d_state=6),
    "s4d": S4DConfig(d_state=6),
    "mamba(s6)": MambaConfig(ssp=S6Config(d_state=16)),
    "mamba(s4d)": MambaConfig(ssp=S4DConfig(d_state=6)),
    "simple(s6)": SimpleConfig(ssp=S6Config(d_state=6)),
    "simple(s4d)": SimpleConfig(ssp=S4DConfig(d_state=6)),
}
LAYERS = (
    BlockConfig(mixer=MIXERS["mamba(s6)"]),
    BlockConfig(mixer=MIXERS["simple(s4d)"], norm=NormConfig(kind="layer"), norm_position="post"),
    BlockConfig(mixer=MIXERS["mamba(s4d)"]),
)
OF_TOKENS = ModelConfig(
    d_model=WIDTH,
    embedding=TokenEmbeddingConfig(vocab_size=VOCABULARY),
    layers=LAYERS,
    head=LanguageModelHeadConfig(),
)
OF_NUMBERS = replace(
    OF_TOKENS, embedding=NumberEmbeddingConfig(d_input=3), head=ClassificationHeadConfig(num_classes=4), final_norm=None
)
BOTH_WAYS = BidirectionalMambaConfig(ssp=S6Config(d_state=6))


@dataclass(frozen=True)
class Extreme:
    """A step size, a decay per step of that size, and the magnitude of the inputs."""

    dt: float
    decay: float
    x: float = 1

    @property
    def rate(self) -> Tensor:
        """-A; a decay of 0 is one that underflows."""
        return torch.tensor(-math.log(self.decay) if self.decay else 1e4) / self.dt


EXTREMES = (
    Extreme(dt=1e-4, decay=1),
    Extreme(dt=1, decay=0.999, x=1e3),
    Extreme(dt=1, decay=1e-8),
    Extreme(dt=1e-4, decay=0),
    Extreme(dt=50, decay=0),
    Extreme(dt=50, decay=1, x=1e3),
)


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once in every form; operators without that form keep their default."""
    name = str(request.param)
    for operator in OPERATORS:
        if name in operator.form_names:
            try:
                operator.form(name)
            except registry.Unavailable as reason:
                pytest.skip(f"{operator.name}: {reason}")
    with registry.chosen(name):
        yield name


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.usefixtures("kernels")
def test_mixers(law: Law, name: str) -> None:
    law(subject_of(build_mixer(MIXERS[name], WIDTH)))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.usefixtures("kernels")
def test_a_language_model(law: Law) -> None:
    law(subject_of(LanguageModel(OF_TOKENS)))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.usefixtures("kernels")
def test_a_backbone_of_numbers(law: Law) -> None:
    law(subject_of(CausalBackbone(OF_NUMBERS)))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("extreme", EXTREMES, ids=str)
@pytest.mark.usefixtures("kernels")
def test_extremes(law: Law, name: str, extreme: Extreme) -> None:
    subject = subject_of(build_mixer(MIXERS[name], WIDTH))
    set_extreme(cast(nn.Module, subject.fold), extreme)
    law(replace(subject, draw=lambda *sizes: extreme.x * subject.draw(*sizes), warm=(5,)))


def subject_of(fold: Fold, dtype: torch.dtype = torch.float64, tolerance: float = 1e-10) -> Subject:
    """The fold with all its parameters off their initial values, which hide mistakes where they are 0 or 1."""
    torch.manual_seed(0)
    module = cast(nn.Module, fold).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    width = {LanguageModel: None, CausalBackbone: 3}.get(type(fold), WIDTH)
    return Subject(fold=fold, draw=lambda *sizes: draw(*sizes, width, dtype), dtype=dtype, tolerance=tolerance)


def draw(batch: int, length: int, width: int | None, dtype: torch.dtype) -> Tensor:
    if width is None:
        return torch.randint(VOCABULARY, (batch, length))
    return torch.randn(batch, length, width, dtype=dtype)


def set_extreme(model: nn.Module, extreme: Extreme) -> None:
    dt = torch.tensor(extreme.dt, dtype=torch.float64)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, S6):
                module.dt_proj.bias.fill_(dt + torch.log(-torch.expm1(-dt)))
                module.coefficients.A_log.fill_(extreme.rate.log())
            elif isinstance(module, S4DCoefficients):
                module.inv_dt.fill_(dt.log())
                module.A_real.fill_(extreme.rate.log())
