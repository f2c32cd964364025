"""The table of ready-made models: what `ssp-model train` builds by name. A new one is a line here."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ssp_runtime.errors import suggestion
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.bidirectional import BidirectionalMambaConfig, WholeSimpleConfig
from ssp_runtime.mixers.deltanet import DeltaNetConfig
from ssp_runtime.mixers.dss import DSSConfig
from ssp_runtime.mixers.ema import EMAConfig
from ssp_runtime.mixers.gated_deltanet import GatedDeltaNetConfig
from ssp_runtime.mixers.gateloop import GateLoopConfig
from ssp_runtime.mixers.gla import GLAConfig
from ssp_runtime.mixers.griffin import GriffinConfig
from ssp_runtime.mixers.gss import GSSConfig
from ssp_runtime.mixers.hgrn import HGRNConfig
from ssp_runtime.mixers.hgrn2 import HGRN2Config
from ssp_runtime.mixers.kda import KDAConfig
from ssp_runtime.mixers.linear_attention import LinearAttentionConfig
from ssp_runtime.mixers.lru import LRUConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.mamba2 import Mamba2Config
from ssp_runtime.mixers.mingru import MinGRUConfig
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.mixers.mlstm import MLSTMConfig
from ssp_runtime.mixers.qrnn import QRNNConfig
from ssp_runtime.mixers.retnet import RetNetConfig
from ssp_runtime.mixers.rwkv4 import RWKV4ChannelMixingConfig, RWKV4Config
from ssp_runtime.mixers.rwkv5 import RWKV5Config
from ssp_runtime.mixers.rwkv6 import RWKV6ChannelMixingConfig, RWKV6Config
from ssp_runtime.mixers.rwkv7 import RWKV7ChannelMixingConfig, RWKV7Config
from ssp_runtime.mixers.s4 import S4Config
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.mixers.s5 import S5Config
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.mixers.slstm import SLSTMConfig
from ssp_runtime.mixers.sru import SRUConfig
from ssp_runtime.mixers.strongly_typed_rnn import StronglyTypedRNNConfig
from ssp_runtime.mixers.window_attention import WindowAttentionConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    EmbeddingConfig,
    HeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
    ValuesHeadConfig,
)

# The blocks of layer i of n, by what they mix with; a mixer of tokens is often followed by one of features.
Layer = Callable[[int, int], tuple[MixerConfig, ...]]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    layer: Layer
    norm: NormConfig = field(default_factory=NormConfig)
    post_norm: bool = False
    embedding_norm: NormConfig | None = None
    head: LanguageModelHeadConfig = field(default_factory=LanguageModelHeadConfig)


def every(*mixers: MixerConfig) -> Layer:
    """Layers that are all alike."""
    return lambda _i, _n: mixers


def _hgrn(i: int, n: int) -> tuple[MixerConfig, ...]:
    """Deeper layers remember longer; the last forgets at most 1 / n of its state at a token."""
    return HGRNConfig(lower_bound=i / n), GatedMLPConfig()


def _hgrn2(i: int, n: int) -> tuple[MixerConfig, ...]:
    return HGRN2Config(expand_ratio=16, lower_bound=i / n), GatedMLPConfig()


def _xlstm_7_1(i: int, _n: int) -> tuple[MixerConfig, ...]:
    """One layer in eight is sLSTM, from the second on."""
    if i % 8 == 1:
        return SLSTMConfig(), GatedMLPConfig(activation="gelu")
    return MLSTMConfig(), GatedMLPConfig()


# What xLSTM 7B has around its layers.
_XLSTM_NORM, _XLSTM_HEAD = NormConfig(eps=1e-6), LanguageModelHeadConfig(tied=False, soft_cap=30.0)


def _rwkv(time_mixing: Callable[..., MixerConfig], channel_mixing: Callable[..., MixerConfig]) -> Architecture:
    """What all its versions have around their layers, which start out according to their depth."""
    norm, head = NormConfig(kind="layer"), LanguageModelHeadConfig(tied=False)

    def layer(i: int, n: int) -> tuple[MixerConfig, ...]:
        return time_mixing(depth=i / n), channel_mixing(depth=i / n)

    return Architecture(layer=layer, norm=norm, embedding_norm=norm, head=head)


def _griffin(i: int, _n: int) -> tuple[MixerConfig, ...]:
    """Every third layer attends to a window, those before it are recurrent (section 3.1 of the paper)."""
    mixer = WindowAttentionConfig() if i % 3 == 2 else GriffinConfig()
    return mixer, GatedMLPConfig(activation="gelu_tanh", bias=True)


ARCHITECTURES: dict[str, Architecture] = {
    "mamba": Architecture(layer=every(MambaConfig())),
    "mamba-s4d": Architecture(layer=every(MambaConfig(ssp=S4DConfig(d_state=16)))),
    "mamba2": Architecture(layer=every(Mamba2Config(d_state=64, head_dim=16))),
    "bidirectional-mamba": Architecture(layer=every(BidirectionalMambaConfig())),
    "bidirectional-mamba-s4d": Architecture(layer=every(BidirectionalMambaConfig(ssp=S4DConfig(d_state=16)))),
    "simple-s4d": Architecture(layer=every(SimpleConfig()), norm=NormConfig(kind="layer"), post_norm=True),
    "s4": Architecture(layer=every(MambaConfig(ssp=S4Config(d_state=16)))),
    "simple-s4": Architecture(layer=every(SimpleConfig(ssp=S4Config())), norm=NormConfig(kind="layer"), post_norm=True),
    "dss": Architecture(
        layer=every(SimpleConfig(ssp=DSSConfig(l_train=256))), norm=NormConfig(kind="layer"), post_norm=True
    ),
    "bidirectional-simple-s4d": Architecture(
        layer=every(WholeSimpleConfig()), norm=NormConfig(kind="layer"), post_norm=True
    ),
    "lru": Architecture(layer=every(SimpleConfig(ssp=LRUConfig())), norm=NormConfig(kind="layer")),
    "s5": Architecture(layer=every(SimpleConfig(ssp=S5Config())), norm=NormConfig(kind="layer")),
    "mega-ema": Architecture(layer=every(SimpleConfig(ssp=EMAConfig())), norm=NormConfig(kind="layer")),
    "gss": Architecture(layer=every(GSSConfig(d_state=64)), norm=NormConfig(kind="layer")),
    "gateloop": Architecture(layer=every(GateLoopConfig(), GatedMLPConfig())),
    "sru": Architecture(layer=every(SRUConfig())),
    "qrnn": Architecture(layer=every(QRNNConfig())),
    "mingru": Architecture(layer=every(MinGRUConfig(), GatedMLPConfig())),
    "strongly-typed-rnn": Architecture(layer=every(StronglyTypedRNNConfig())),
    "hgrn": Architecture(layer=_hgrn),
    "gla": Architecture(layer=every(GLAConfig(), GatedMLPConfig())),
    "xlstm": Architecture(layer=every(MLSTMConfig(), GatedMLPConfig()), norm=_XLSTM_NORM, head=_XLSTM_HEAD),
    "xlstm-7-1": Architecture(layer=_xlstm_7_1, norm=_XLSTM_NORM, head=_XLSTM_HEAD),
    "rwkv4": _rwkv(RWKV4Config, RWKV4ChannelMixingConfig),
    "rwkv5": _rwkv(RWKV5Config, RWKV4ChannelMixingConfig),
    "rwkv6": _rwkv(RWKV6Config, RWKV6ChannelMixingConfig),
    "rwkv7": _rwkv(RWKV7Config, RWKV7ChannelMixingConfig),
    "retnet": Architecture(layer=every(RetNetConfig(), GatedMLPConfig())),
    "hgrn2": Architecture(layer=_hgrn2),
    "linear-attention": Architecture(layer=every(LinearAttentionConfig(), GatedMLPConfig())),
    "deltanet": Architecture(layer=every(DeltaNetConfig(), GatedMLPConfig())),
    "gated-deltanet": Architecture(layer=every(GatedDeltaNetConfig(), GatedMLPConfig())),
    "kda": Architecture(layer=every(KDAConfig(), GatedMLPConfig())),
    "griffin": Architecture(layer=_griffin, norm=NormConfig(eps=1e-6)),
}


def model_config(
    architecture: str, *, d_model: int, num_layers: int, dropout: float, vocab_size: int, num_classes: int = 0
) -> ModelConfig:
    """The model of that architecture and size; a language model, or with classes a classifier.

    Raises:
        ValueError: there is no such architecture.
    """
    chosen = _find(architecture)
    head = ClassificationHeadConfig(num_classes=num_classes) if num_classes else chosen.head
    return _model(chosen, TokenEmbeddingConfig(vocab_size=vocab_size), head, d_model, num_layers, dropout)


def regressor_config(
    architecture: str, *, d_model: int, num_layers: int, dropout: float, d_input: int, d_output: int
) -> ModelConfig:
    """The same from numbers to numbers. Without norms around the layers, which would bound the outputs: amplitudes
    beyond those in training are then predicted better.

    Raises:
        ValueError: there is no such architecture.
    """
    embedding, head = NumberEmbeddingConfig(d_input=d_input), ValuesHeadConfig(d_output=d_output)
    whole = _model(_find(architecture), embedding, head, d_model, num_layers, dropout)
    return replace(whole, embedding_norm=None, final_norm=None)


def _find(architecture: str) -> Architecture:
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no architecture is called {architecture!r}{suggestion(architecture, ARCHITECTURES)}")
    return ARCHITECTURES[architecture]


def _model(
    chosen: Architecture, embedding: EmbeddingConfig, head: HeadConfig, d_model: int, num_layers: int, dropout: float
) -> ModelConfig:
    blocks = (_block(chosen, mixer, dropout) for i in range(num_layers) for mixer in chosen.layer(i, num_layers))
    return ModelConfig(
        d_model=d_model,
        embedding=embedding,
        embedding_norm=chosen.embedding_norm,
        layers=tuple(blocks),
        head=head,
        final_norm=None if chosen.post_norm else chosen.norm,
    )


def _block(architecture: Architecture, mixer: MixerConfig, dropout: float) -> BlockConfig:
    position: Literal["pre", "post"] = "post" if architecture.post_norm else "pre"
    if isinstance(mixer, SimpleConfig | WholeSimpleConfig):  # drops features itself, before its last projection
        mixer, dropout = replace(mixer, dropout=dropout), 0.0
    return BlockConfig(mixer=mixer, norm=architecture.norm, norm_position=position, dropout=dropout)
