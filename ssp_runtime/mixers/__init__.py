"""The table of layers. A new one is a file of its own and a line here."""

import difflib
from typing import Any, cast

from ssp_runtime.mixers.base import Mixer, MixerConfig, SequenceLayer
from ssp_runtime.mixers.gla import GLA
from ssp_runtime.mixers.hgrn import HGRN
from ssp_runtime.mixers.mamba import BidirectionalMamba, Mamba
from ssp_runtime.mixers.mlp import GatedMLP
from ssp_runtime.mixers.s4d import S4D
from ssp_runtime.mixers.s6 import S6
from ssp_runtime.mixers.simple import Simple

MIXERS: dict[str, type[SequenceLayer]] = {
    "s6": S6,
    "s4d": S4D,
    "mamba": Mamba,
    "bidirectional_mamba": BidirectionalMamba,
    "simple": Simple,
    "gated_mlp": GatedMLP,
    "hgrn": HGRN,
    "gla": GLA,
}


def config_class(kind: str) -> type[MixerConfig]:
    """The configuration of that kind of layer.

    Raises:
        ValueError: there is none of that name.
    """
    if kind not in MIXERS:
        close = difflib.get_close_matches(kind, MIXERS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f": there are {', '.join(MIXERS)}"
        raise ValueError(f"no layer is called {kind!r}{hint}")
    return cast(type[MixerConfig], cast(Any, MIXERS[kind]).Config)


def build_layer(config: MixerConfig, width: int) -> SequenceLayer:
    """A new layer with random weights, `width` features wide."""
    return cast(SequenceLayer, cast(Any, MIXERS[config.kind])(width, config))


def build_mixer(config: MixerConfig, width: int) -> Mixer:
    """`build_layer` for where only a causal one will do.

    Raises:
        ValueError: the layer needs the whole sequence.
    """
    layer = build_layer(config, width)
    if not isinstance(layer, Mixer):
        raise ValueError(f"{config.kind} needs whole sequences; a causal layer belongs here")
    return layer
