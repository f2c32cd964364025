"""The seven laws over all layers and whole models, in every available form of the operators."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from ssp_kernels import causal_conv1d, lti_ssm, registry, selective_scan
from torch import Tensor, nn

from ssp_runtime.mixers import build_mixer
from ssp_runtime.mixers.base import MixerConfig, SequenceLayer
from ssp_runtime.mixers.mamba import BidirectionalMambaConfig, MambaConfig
from ssp_runtime.mixers.s4d import S4DCoefficients, S4DConfig
from ssp_runtime.mixers.s6 import S6, S6Coefficients, S6Config
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


LAW = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)


def operators_of(config: MixerConfig) -> list[registry.Operator[Any]]:
    """Those that the mixer's step runs on."""
    used = []

    def pick(operator: registry.Operator[Any], tensor: Tensor) -> object:
        used.append(operator)
        return original(operator, tensor)

    original = registry.Operator.pick
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.Operator, "pick", pick)
        subject = subject_of(build_mixer(config, WIDTH))
        subject.fold.step(subject.draw(1, 1)[:, 0], subject.initial_state(1))
    return used


def cases(kernels: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each mixer in each form that one of its operators has."""
    return [
        (name, form)
        for name, config in MIXERS.items()
        for form in kernels
        if any(form in operator.form_names for operator in operators_of(config))
    ]


@contextmanager
def running_on(kernels: str) -> Iterator[None]:
    """Operators run in that form; those without it in their default."""
    for operator in OPERATORS:
        if kernels in operator.form_names:
            try:
                operator.form(kernels)
            except registry.Unavailable as reason:
                pytest.skip(f"{operator.name}: {reason}")
    with registry.chosen(kernels):
        yield


@LAW
@pytest.mark.parametrize(("name", "kernels"), cases(KERNELS))
def test_mixers(law: Law, name: str, kernels: str) -> None:
    with running_on(kernels):
        law(subject_of(build_mixer(MIXERS[name], WIDTH)))


@LAW
@pytest.mark.parametrize(("name", "kernels"), cases(KERNELS))
@pytest.mark.parametrize("extreme", EXTREMES, ids=str)
def test_extremes(law: Law, name: str, kernels: str, extreme: Extreme) -> None:
    with running_on(kernels):
        law(at(extreme, subject_of(build_mixer(MIXERS[name], WIDTH))))


@LAW
@pytest.mark.parametrize("kernels", KERNELS)
def test_a_language_model(law: Law, kernels: str) -> None:
    with running_on(kernels):
        law(subject_of(LanguageModel(OF_TOKENS)))


@LAW
@pytest.mark.parametrize("kernels", KERNELS)
def test_a_backbone_of_numbers(law: Law, kernels: str) -> None:
    with running_on(kernels):
        law(subject_of(CausalBackbone(OF_NUMBERS)))


@pytest.mark.parametrize("law", [laws.law_1_forward_is_the_folded_step, laws.law_6_conversion_changes_nothing])
@pytest.mark.parametrize("name", MIXERS)
def test_mixers_in_float32(law: Law, name: str) -> None:
    law(subject_of(build_mixer(MIXERS[name], WIDTH), torch.float32, 1e-5))


@pytest.mark.parametrize("law", [laws.law_1_forward_is_the_folded_step, laws.law_6_conversion_changes_nothing])
def test_models_in_float32(law: Law) -> None:
    law(subject_of(LanguageModel(OF_TOKENS), torch.float32, 1e-4))
    law(subject_of(CausalBackbone(OF_NUMBERS), torch.float32, 1e-4))


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_with_bfloat16_weights(name: str) -> None:
    laws.law_1_forward_is_the_folded_step(served_in_bfloat16(subject_of(build_mixer(MIXERS[name], WIDTH))))


def test_models_with_bfloat16_weights() -> None:
    laws.law_1_forward_is_the_folded_step(served_in_bfloat16(subject_of(LanguageModel(OF_TOKENS))))
    laws.law_1_forward_is_the_folded_step(served_in_bfloat16(subject_of(CausalBackbone(OF_NUMBERS))))


def subject_of(fold: Fold, dtype: torch.dtype = torch.float64, tolerance: float = 1e-10) -> Subject:
    """The fold with all its parameters off their initial values, which hide mistakes where they are 0 or 1."""
    torch.manual_seed(0)
    module = cast(nn.Module, fold).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Subject(fold=fold, draw=drawing_for(module, dtype), dtype=dtype, tolerance=tolerance)


def drawing_for(module: nn.Module, dtype: torch.dtype) -> Callable[[int, int], Tensor]:
    if isinstance(module, LanguageModel | Classifier) and module.config.embedding.kind == "tokens":
        return lambda batch, length: torch.randint(VOCABULARY, (batch, length))
    width = WIDTH if isinstance(module, SequenceLayer) else OF_NUMBERS.embedding.d_input
    return lambda batch, length: torch.randn(batch, length, width, dtype=dtype)


def at(extreme: Extreme, subject: Subject) -> Subject:
    dt = torch.tensor(extreme.dt, dtype=torch.float64)
    with torch.no_grad():
        for module in cast(nn.Module, subject.fold).modules():
            if isinstance(module, S6):
                module.dt_proj.bias.fill_(dt + torch.log(-torch.expm1(-dt)))
            elif isinstance(module, S6Coefficients):
                module.A_log.fill_(extreme.rate.log())
            elif isinstance(module, S4DCoefficients):
                module.inv_dt.fill_(dt.log())
                module.A_real.fill_(extreme.rate.log())
    return replace(subject, draw=lambda *sizes: extreme.x * subject.draw(*sizes), warm=(5,))


def served_in_bfloat16(subject: Subject) -> Subject:
    module = cast(nn.Module, subject.fold).float()
    to_recurrent(module)
    draw = drawing_for(module, torch.bfloat16)
    return replace(subject, fold=module.bfloat16(), draw=draw, dtype=torch.bfloat16, tolerance=2e-2)
