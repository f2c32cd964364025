"""The table of ready-made models: what `ssp-model train` builds by name. A new one is a line here."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.gla import GLAConfig
from ssp_runtime.mixers.hgrn import HGRNConfig
from ssp_runtime.mixers.mamba import BidirectionalMambaConfig, MambaConfig
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

# The blocks of layer i of n, by what they mix with; a mixer of tokens is often followed by one of features.
Layer = Callable[[int, int], tuple[MixerConfig, ...]]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    layer: Layer
    norm: NormConfig = field(default_factory=NormConfig)
    post_norm: bool = False


def every(*mixers: MixerConfig) -> Layer:
    """Layers that are all alike."""
    return lambda _i, _n: mixers


def _hgrn(i: int, n: int) -> tuple[MixerConfig, ...]:
    """Deeper layers remember longer; the last forgets at most 1 / n of its state at a token."""
    return HGRNConfig(lower_bound=i / n), GatedMLPConfig()


ARCHITECTURES: dict[str, Architecture] = {
    "mamba": Architecture(layer=every(MambaConfig())),
    "mamba-s4d": Architecture(layer=every(MambaConfig(ssp=S4DConfig(d_state=16)))),
    "bidirectional-mamba": Architecture(layer=every(BidirectionalMambaConfig())),
    "simple-s4d": Architecture(layer=every(SimpleConfig()), norm=NormConfig(kind="layer"), post_norm=True),
    "hgrn": Architecture(layer=_hgrn),
    "gla": Architecture(layer=every(GLAConfig(), GatedMLPConfig())),
}


def model_config(
    architecture: str, *, d_model: int, num_layers: int, dropout: float, vocab_size: int, num_classes: int = 0
) -> ModelConfig:
    """The model of that architecture and size; a language model, or with classes a classifier.

    Raises:
        ValueError: there is no such architecture.
    """
    if architecture not in ARCHITECTURES:
        close = difflib.get_close_matches(architecture, ARCHITECTURES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f": there are {', '.join(ARCHITECTURES)}"
        raise ValueError(f"no architecture is called {architecture!r}{hint}")
    chosen = ARCHITECTURES[architecture]
    blocks = (_block(chosen, mixer, dropout) for i in range(num_layers) for mixer in chosen.layer(i, num_layers))
    return ModelConfig(
        d_model=d_model,
        embedding=TokenEmbeddingConfig(vocab_size=vocab_size),
        layers=tuple(blocks),
        head=ClassificationHeadConfig(num_classes=num_classes) if num_classes else LanguageModelHeadConfig(),
        final_norm=None if chosen.post_norm else chosen.norm,
    )


def _block(architecture: Architecture, mixer: MixerConfig, dropout: float) -> BlockConfig:
    position: Literal["pre", "post"] = "post" if architecture.post_norm else "pre"
    if isinstance(mixer, SimpleConfig):  # drops features itself, before its last projection
        mixer, dropout = replace(mixer, dropout=dropout), 0.0
    return BlockConfig(mixer=mixer, norm=architecture.norm, norm_position=position, dropout=dropout)
