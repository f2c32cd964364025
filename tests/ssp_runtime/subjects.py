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
from ssp_runtime.mixers.decay_gate import DecayGate, HeadRates
from ssp_runtime.mixers.deltanet import DeltaNetConfig
from ssp_runtime.mixers.dss import DSSCoefficients, DSSConfig
from ssp_runtime.mixers.ema import EMACoefficients, EMAConfig
from ssp_runtime.mixers.gated_deltanet import GatedDeltaNetConfig
from ssp_runtime.mixers.gateloop import GateLoopConfig
from ssp_runtime.mixers.gla import GLAConfig
from ssp_runtime.mixers.griffin import GriffinConfig
from ssp_runtime.mixers.gss import GSSCoefficients, GSSConfig
from ssp_runtime.mixers.hgrn import HGRNConfig
from ssp_runtime.mixers.hgrn2 import HGRN2Config
from ssp_runtime.mixers.initialization import inverse_softplus
from ssp_runtime.mixers.kda import KDAConfig
from ssp_runtime.mixers.linear_attention import LinearAttentionConfig
from ssp_runtime.mixers.lru import LRUCoefficients, LRUConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.mamba2 import Mamba2, Mamba2Config
from ssp_runtime.mixers.mingru import MinGRUConfig
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.mixers.mlstm import MLSTMConfig
from ssp_runtime.mixers.qrnn import QRNNConfig
from ssp_runtime.mixers.retnet import RetNetConfig
from ssp_runtime.mixers.rg_lru import RGLRUCoefficients, RGLRUConfig
from ssp_runtime.mixers.rotary_s6 import RotaryS6Config
from ssp_runtime.mixers.rwkv4 import RWKV4ChannelMixingConfig, RWKV4Coefficients, RWKV4Config
from ssp_runtime.mixers.rwkv5 import RWKV5Coefficients, RWKV5Config
from ssp_runtime.mixers.rwkv6 import RWKV6, RWKV6ChannelMixingConfig, RWKV6Config
from ssp_runtime.mixers.rwkv7 import RWKV7, RWKV7ChannelMixingConfig, RWKV7Config
from ssp_runtime.mixers.s4 import S4Coefficients, S4Config
from ssp_runtime.mixers.s4d import S4DCoefficients, S4DConfig
from ssp_runtime.mixers.s5 import S5Coefficients, S5Config
from ssp_runtime.mixers.s6 import S6, S6Coefficients, S6Config
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.mixers.slstm import SLSTMConfig
from ssp_runtime.mixers.sru import SRUConfig
from ssp_runtime.mixers.state_space import StateSpaceCoefficients
from ssp_runtime.mixers.strongly_typed_rnn import StronglyTypedRNNConfig
from ssp_runtime.mixers.window_attention import WindowAttentionConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
    ValuesHeadConfig,
)
from ssp_runtime.models.model import CausalBackbone, LanguageModel, SequenceRegressor
from tests.ssp_runtime.laws import Subject

Module = TypeVar("Module", bound=nn.Module)

WIDTH = 6
VOCABULARY = 11
D_INPUT = 3
KERNELS = ("reference", "torch", "native", *(("triton",) if os.environ.get("TRITON_INTERPRET") else ()))

MIXERS: dict[str, MixerConfig] = {
    "s6": S6Config(d_state=6),
    "s6(normed)": S6Config(d_state=5, norm_eps=1e-3),
    "rotary_s6": RotaryS6Config(ssp=S6Config(d_state=6), turned=("B", "C", "x"), l_train=50, period=7),
    "s4d": S4DConfig(d_state=6),
    "s4d(bilinear)": S4DConfig(d_state=6, discretization="bilinear"),
    "s4": S4Config(d_state=6),
    "mamba(s4)": MambaConfig(ssp=S4Config(d_state=6)),
    "dss": DSSConfig(d_state=6, l_train=20),
    "mamba(s6)": MambaConfig(ssp=S6Config(d_state=16)),
    "mamba(s4d)": MambaConfig(ssp=S4DConfig(d_state=6), bias=True, conv_bias=False),
    "simple(s6)": SimpleConfig(ssp=S6Config(d_state=6)),
    "simple(s4d)": SimpleConfig(ssp=S4DConfig(d_state=6)),
    "mamba2": Mamba2Config(d_state=5, head_dim=3, n_groups=2, bias=True, conv_bias=False),
    "lru": LRUConfig(d_state=5),
    "s5": S5Config(d_state=6),
    "s5(bilinear)": S5Config(d_state=10, discretization="bilinear"),
    "ema": EMAConfig(d_state=3),
    "gss": GSSConfig(expand=2, d_ssm=3, d_state=5),
    "gateloop": GateLoopConfig(expand=2),
    "sru": SRUConfig(),
    "qrnn": QRNNConfig(),
    "mingru": MinGRUConfig(),
    "strongly_typed_rnn": StronglyTypedRNNConfig(),
    "gated_mlp": GatedMLPConfig(),
    "hgrn": HGRNConfig(lower_bound="learned"),
    "gla": GLAConfig(num_heads=3, expand_k=2, gate_rank=2),
    "gla(convolved)": GLAConfig(num_heads=2, expand_k=1, expand_v=2, gate_rank=2, d_conv=3, output_gate=False),
    "mlstm": MLSTMConfig(num_heads=2, expand_k=5 / 3),
    "mlstm(uncapped)": MLSTMConfig(num_heads=2, expand_k=4 / 3, gate_soft_cap=None),
    "slstm": SLSTMConfig(num_heads=2),
    "slstm(no conv)": SLSTMConfig(num_heads=1, d_conv=None),
    "retnet": RetNetConfig(num_heads=3),
    "retnet(rope)": RetNetConfig(
        num_heads=1, expand_k=2 / 3, expand_v=1, rotary="rope", normalize_scores=False, norm_weight=True
    ),
    "hgrn2": HGRN2Config(expand_ratio=3, lower_bound="learned"),
    "hgrn2(bounded)": HGRN2Config(expand_ratio=2, lower_bound=0.2),
    "linear_attention": LinearAttentionConfig(num_heads=2),
    "linear_attention(sums)": LinearAttentionConfig(num_heads=3, feature_map="identity", normalize=False),
    "linear_attention(product)": LinearAttentionConfig(
        num_heads=2, expand_k=2, feature_map="product", normalize=False, output_norm=True
    ),
    "deltanet": DeltaNetConfig(num_heads=2, expand_v=2),
    "deltanet-negative": DeltaNetConfig(
        num_heads=2, expand_v=2, d_conv=3, allow_negative_eigenvalues=True, output_gate=True
    ),
    "gated_deltanet": GatedDeltaNetConfig(num_heads=3, expand_k=1.5),
    "kda": KDAConfig(num_heads=2, expand_v=2),
    "rwkv4": RWKV4Config(depth=0.3),
    "rwkv4_channel_mixing": RWKV4ChannelMixingConfig(d_hidden=7),
    "rwkv5": RWKV5Config(num_heads=2),
    "rwkv5(5.0)": RWKV5Config(num_heads=3, version="5.0"),
    "rwkv5(5.1)": RWKV5Config(num_heads=3, version="5.1"),
    "rwkv6": RWKV6Config(num_heads=2, expand_k=2 / 3, mix_rank=3, decay_rank=2, depth=0.3),
    "rwkv6_channel_mixing": RWKV6ChannelMixingConfig(),
    "rwkv7": RWKV7Config(num_heads=2, decay_rank=2, rate_rank=3, value_rank=2, gate_rank=5),
    "rwkv7_channel_mixing": RWKV7ChannelMixingConfig(),
    "rg_lru": RGLRUConfig(num_heads=2),
    "griffin": GriffinConfig(lru_width=9, rg_lru=RGLRUConfig(num_heads=3)),
    "window_attention": WindowAttentionConfig(num_heads=3, window=4, partial_rotary_factor=1.0),
    "window_attention(chunked)": WindowAttentionConfig(
        num_heads=1, window=5, chunked=True, partial_rotary_factor=0.7, bias=True
    ),
}
# Those with a state that has to be reachable: positions, stabilizers, sums that are divided by.
NONLINEAR = {
    "rwkv4",
    "rotary_s6",
    "retnet",
    "retnet(rope)",
    "linear_attention",
    "mlstm",
    "mlstm(uncapped)",
    "slstm",
    "slstm(no conv)",
    "rg_lru",
    "griffin",
    "window_attention",
    "window_attention(chunked)",
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
    subject = _subject(build_mixer(MIXERS[name], WIDTH), lambda batch, length: numbers(batch, length, WIDTH))
    return replace(subject, linear=name not in NONLINEAR)


def language_model() -> Subject:
    return _subject(LanguageModel(OF_TOKENS), token_ids)


def backbone_of_numbers() -> Subject:
    return _subject(CausalBackbone(OF_NUMBERS), numbers)


def sequence_regressor() -> Subject:
    return _subject(SequenceRegressor(replace(OF_NUMBERS, head=ValuesHeadConfig(d_output=2))), numbers)


def griffin() -> Subject:
    """Every layer counts positions, and one holds a ring buffer."""
    layers = tuple(BlockConfig(mixer=MIXERS[name]) for name in ("griffin", "window_attention", "gated_mlp"))
    embedding, head = TokenEmbeddingConfig(vocab_size=VOCABULARY, scale=2.5), LanguageModelHeadConfig(soft_cap=3.0)
    config = replace(OF_TOKENS, embedding=embedding, layers=layers, head=head)
    return replace(_subject(LanguageModel(config), token_ids), linear=False)


MODELS = {
    "language model": language_model,
    "backbone of numbers": backbone_of_numbers,
    "sequence regressor": sequence_regressor,
    "griffin": griffin,
}


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


def _set_state_space(module: StateSpaceCoefficients, extreme: Extreme) -> None:
    module.inv_dt.fill_(math.log(extreme.dt))
    module.A_real.fill_(extreme.rate.log())


def _set_rwkv(module: RWKV4Coefficients | RWKV5Coefficients | RWKV6, extreme: Extreme) -> None:
    module.time_decay.fill_((extreme.rate * extreme.dt).log())


def _set_mamba2(module: Mamba2, extreme: Extreme) -> None:
    module.dt_bias.copy_(inverse_softplus(torch.full_like(module.dt_bias, extreme.dt)))


def _set_s5(module: S5Coefficients, extreme: Extreme) -> None:
    module.log_step.fill_(math.log(extreme.dt))
    module.Lambda[:, 0] = -extreme.rate


def _set_ema(module: EMACoefficients, extreme: Extreme) -> None:
    """`alpha delta` is what is lost at a token."""
    module.alpha.fill_(math.inf)
    module.delta.copy_(torch.special.logit(1 - torch.full_like(module.delta, extreme.decay)))


# How decays that are parameters are set; those that depend on inputs saturate by themselves at |x| = 1e3.
SET_DECAYS: dict[type[nn.Module], Callable[[Any, Extreme], object]] = {
    S6: _set_s6,
    S6Coefficients: lambda module, extreme: module.A_log.fill_(extreme.rate.log()),
    S4DCoefficients: _set_state_space,
    S4Coefficients: _set_state_space,
    DSSCoefficients: _set_state_space,
    LRUCoefficients: lambda module, extreme: module.nu_log.fill_((extreme.dt * extreme.rate).log()),
    S5Coefficients: _set_s5,
    EMACoefficients: _set_ema,
    RWKV4Coefficients: _set_rwkv,
    RWKV5Coefficients: _set_rwkv,
    RWKV6: _set_rwkv,
    RWKV7: lambda module, extreme: module.w0.fill_(100 - 200 * extreme.decay),  # its fastest decay is 0.545
    GSSCoefficients: lambda module, extreme: module.Lambda_real.fill_((extreme.dt * extreme.rate).log()),
    Mamba2: _set_mamba2,
    DecayGate: _set_mamba2,  # its dt_bias, too
    HeadRates: lambda module, extreme: module.A_log.fill_(extreme.rate.log()),
    RGLRUCoefficients: lambda module, extreme: module.Lambda.fill_(inverse_softplus(extreme.rate * extreme.dt / 8)),
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
