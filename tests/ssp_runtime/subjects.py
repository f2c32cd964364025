"""What the laws are tried on: the table of mixers, two whole models, and the extremes of their parameters."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from ssp_kernels import registry
from ssp_kernels.operators import OPERATORS
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.mixers import build_mixer
from ssp_runtime.mixers.base import Fold, MixerConfig
from ssp_runtime.mixers.gla import GLAConfig
from ssp_runtime.mixers.hgrn import HGRNConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.mlp import GatedMLPConfig
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
from tests.ssp_runtime.laws import Subject

Module = TypeVar("Module", bound=nn.Module)

WIDTH = 6
VOCABULARY = 11
D_INPUT = 3
KERNELS = ("reference", "torch", "native", *(("triton",) if os.environ.get("TRITON_INTERPRET") else ()))

MIXERS: dict[str, MixerConfig] = {
    "s6": S6Config(d_state=6),
    "s4d": S4DConfig(d_state=6),
    "mamba(s6)": MambaConfig(ssp=S6Config(d_state=16)),
    "mamba(s4d)": MambaConfig(ssp=S4DConfig(d_state=6)),
    "simple(s6)": SimpleConfig(ssp=S6Config(d_state=6)),
    "simple(s4d)": SimpleConfig(ssp=S4DConfig(d_state=6)),
    "gated_mlp": GatedMLPConfig(),
    "hgrn": HGRNConfig(lower_bound=0.2),
    "gla": GLAConfig(num_heads=3, expand_k=2, gate_rank=2),
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
    OF_TOKENS,
    embedding=NumberEmbeddingConfig(d_input=D_INPUT),
    head=ClassificationHeadConfig(num_classes=4),
    final_norm=None,
)


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


def mixer(name: str) -> Subject:
    return _subject(build_mixer(MIXERS[name], WIDTH), lambda batch, length: numbers(batch, length, WIDTH))


def language_model() -> Subject:
    return _subject(LanguageModel(OF_TOKENS), token_ids)


def backbone_of_numbers() -> Subject:
    return _subject(CausalBackbone(OF_NUMBERS), numbers)


MODELS = {"language model": language_model, "backbone of numbers": backbone_of_numbers}


def numbers(batch: int, length: int, width: int = D_INPUT) -> Tensor:
    return torch.randn(batch, length, width, dtype=torch.float64)


def token_ids(batch: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length))


def randomized(module: Module) -> Module:
    """The same in float64, with all parameters moved off their initial values, which hide mistakes where 0 or 1."""
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def _subject(module: Fold, draw: Callable[[int, int], Tensor]) -> Subject:
    return Subject(fold=randomized(module), draw=draw)


def in_dtype(subject: Subject, dtype: torch.dtype, tolerance: float) -> Subject:
    def draw(batch: int, length: int) -> Tensor:
        x = subject.draw(batch, length)
        return x.to(dtype) if x.is_floating_point() else x

    return replace(subject, fold=subject.fold.to(dtype), draw=draw, dtype=dtype, tolerance=tolerance)


def served_in_bfloat16(subject: Subject) -> Subject:
    """Converted in float32, then narrowed. Its roundings are many and random: the largest of them says little."""
    to_recurrent(subject.fold.float())
    return replace(in_dtype(subject, torch.bfloat16, 2e-2), magnitude=torch.linalg.vector_norm)


def at(extreme: Extreme, subject: Subject) -> Subject:
    with torch.no_grad():
        for module in subject.fold.modules():
            if type(module) in SET_DECAYS:
                SET_DECAYS[type(module)](module, extreme)
    return replace(subject, draw=lambda *sizes: extreme.x * subject.draw(*sizes), warm=(5,))


def _set_s6(module: S6, extreme: Extreme) -> None:
    dt = torch.tensor(extreme.dt, dtype=torch.float64)
    module.dt_proj.bias.fill_(dt + torch.log(-torch.expm1(-dt)))


def _set_s4d(module: S4DCoefficients, extreme: Extreme) -> None:
    module.inv_dt.fill_(math.log(extreme.dt))
    module.A_real.fill_(extreme.rate.log())


# How decays that are parameters are set; those that depend on inputs saturate by themselves at |x| = 1e3.
SET_DECAYS: dict[type[nn.Module], Callable[[Any, Extreme], object]] = {
    S6: _set_s6,
    S6Coefficients: lambda module, extreme: module.A_log.fill_(extreme.rate.log()),
    S4DCoefficients: _set_s4d,
}


def operators_of(name: str) -> list[registry.Operator[Any]]:
    """Those that the mixer's step runs on."""
    used = []

    def pick(operator: registry.Operator[Any], tensor: Tensor) -> object:
        used.append(operator)
        return original(operator, tensor)

    original = registry.Operator.pick
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.Operator, "pick", pick)
        subject = mixer(name)
        subject.fold.step(subject.draw(1, 1)[:, 0], subject.initial_state(1))
    return used


def cases() -> Iterator[tuple[str, str]]:
    """Each mixer in each form that one of its operators has."""
    for name in MIXERS:
        operators = operators_of(name)
        yield from ((name, form) for form in KERNELS if any(form in operator.form_names for operator in operators))


CASES = list(cases())
# The reference has little to prove at the extremes: it is the folded step.
EXTREME_CASES = [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] == "reference")) for case in CASES]


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
