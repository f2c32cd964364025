"""The table of layers. A new one is a file of its own and a line here."""

from dataclasses import asdict
from typing import Any, cast

from ssp_runtime.errors import suggestion
from ssp_runtime.mixers.base import Mixer, MixerConfig, SequenceLayer, validated
from ssp_runtime.mixers.bidirectional import (
    Bidirectional,
    BidirectionalMamba,
    TwoSided,
    WholeMamba,
    WholeSimple,
)
from ssp_runtime.mixers.deltanet import DeltaNet
from ssp_runtime.mixers.dss import DSS
from ssp_runtime.mixers.ema import EMA
from ssp_runtime.mixers.gated_deltanet import GatedDeltaNet
from ssp_runtime.mixers.gateloop import GateLoop
from ssp_runtime.mixers.gla import GLA
from ssp_runtime.mixers.griffin import Griffin
from ssp_runtime.mixers.gss import GSS
from ssp_runtime.mixers.hgrn import HGRN
from ssp_runtime.mixers.hgrn2 import HGRN2
from ssp_runtime.mixers.kda import KDA
from ssp_runtime.mixers.linear_attention import LinearAttention
from ssp_runtime.mixers.lru import LRU
from ssp_runtime.mixers.mamba import Mamba
from ssp_runtime.mixers.mamba2 import Mamba2
from ssp_runtime.mixers.mingru import MinGRU
from ssp_runtime.mixers.mlp import GatedMLP
from ssp_runtime.mixers.mlstm import MLSTM
from ssp_runtime.mixers.qrnn import QRNN
from ssp_runtime.mixers.retnet import RetNet
from ssp_runtime.mixers.rg_lru import RGLRU
from ssp_runtime.mixers.rotary_s6 import RotaryS6
from ssp_runtime.mixers.rwkv4 import RWKV4, RWKV4ChannelMixing
from ssp_runtime.mixers.rwkv5 import RWKV5
from ssp_runtime.mixers.rwkv6 import RWKV6, RWKV6ChannelMixing
from ssp_runtime.mixers.rwkv7 import RWKV7, RWKV7ChannelMixing
from ssp_runtime.mixers.s4 import S4
from ssp_runtime.mixers.s4d import S4D
from ssp_runtime.mixers.s5 import S5
from ssp_runtime.mixers.s6 import S6
from ssp_runtime.mixers.simple import Simple
from ssp_runtime.mixers.slstm import SLSTM
from ssp_runtime.mixers.sru import SRU
from ssp_runtime.mixers.strongly_typed_rnn import StronglyTypedRNN
from ssp_runtime.mixers.window_attention import WindowAttention

MIXERS: dict[str, type[SequenceLayer]] = {
    "s6": S6,
    "rotary_s6": RotaryS6,
    "s4": S4,
    "s4d": S4D,
    "dss": DSS,
    "lru": LRU,
    "s5": S5,
    "ema": EMA,
    "gss": GSS,
    "gateloop": GateLoop,
    "sru": SRU,
    "qrnn": QRNN,
    "mingru": MinGRU,
    "strongly_typed_rnn": StronglyTypedRNN,
    "mamba": Mamba,
    "mamba2": Mamba2,
    "bidirectional": Bidirectional,
    "two_sided": TwoSided,
    "bidirectional_mamba": BidirectionalMamba,
    "whole_mamba": WholeMamba,
    "whole_simple": WholeSimple,
    "simple": Simple,
    "gated_mlp": GatedMLP,
    "hgrn": HGRN,
    "gla": GLA,
    "mlstm": MLSTM,
    "slstm": SLSTM,
    "deltanet": DeltaNet,
    "gated_deltanet": GatedDeltaNet,
    "kda": KDA,
    "retnet": RetNet,
    "hgrn2": HGRN2,
    "linear_attention": LinearAttention,
    "rwkv4": RWKV4,
    "rwkv4_channel_mixing": RWKV4ChannelMixing,
    "rwkv5": RWKV5,
    "rwkv6": RWKV6,
    "rwkv6_channel_mixing": RWKV6ChannelMixing,
    "rwkv7": RWKV7,
    "rwkv7_channel_mixing": RWKV7ChannelMixing,
    "rg_lru": RGLRU,
    "griffin": Griffin,
    "window_attention": WindowAttention,
}


def config_class(kind: str) -> type[MixerConfig]:
    """The configuration of that kind of layer.

    Raises:
        ValueError: there is none of that name.
    """
    if kind not in MIXERS:
        raise ValueError(f"no layer is called {kind!r}{suggestion(kind, MIXERS)}")
    return cast(type[MixerConfig], cast(Any, MIXERS[kind]).Config)


def build_layer(config: MixerConfig, width: int) -> SequenceLayer:
    """A new layer with random weights, `width` features wide.

    Raises:
        ValueError: there is no such layer; the message says what to change.
    """
    if width < 1:
        raise ValueError(f"a layer has at least 1 feature; choose a width above {width}")
    checked = validated(type(config), asdict(cast(Any, config)))
    return cast(SequenceLayer, cast(Any, MIXERS[config.kind])(width, checked))


def build_mixer(config: MixerConfig, width: int) -> Mixer:
    """`build_layer` for where only a causal one will do.

    Raises:
        ValueError: the layer needs the whole sequence.
    """
    layer = build_layer(config, width)
    if not isinstance(layer, Mixer):
        raise ValueError(f"{config.kind} needs whole sequences; a causal layer belongs here")
    return layer
