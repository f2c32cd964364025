"""RWKV-6 as flash-linear-attention saves it (`model_type` "rwkv6")."""

from functools import partial

from torch import Tensor

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.foreign.fla.common import BLOCK, TIED, language_model, named, transposed
from ssp_runtime.formats.foreign.fla.rwkv7 import embedding_norm, layer_norm
from ssp_runtime.mixers.rwkv6 import PARTS, RWKV6ChannelMixingConfig, RWKV6Config
from ssp_runtime.models.config import ModelConfig

THEIR_PARTS = "rwkvg"  # the order of their mixtures
ORDER = [THEIR_PARTS.index(part) for part in PARTS]
MIXING = {
    "time_maa_x": "x_proj.0.mu",
    "time_maa_w1": "x_proj.0.linear.weight",
    "time_maa_w2": "x_proj.2.weight",
    **{f"time_maa_{part}": "x_bias" for part in THEIR_PARTS},
    "time_decay_w1": "w_proj.linear.lora.0.weight",
    "time_decay_w2": "w_proj.linear.lora.2.weight",
    "time_decay": "w_proj.linear.lora.2.bias",
    "time_faaaa": "bonus",
    "receptance.": "r_proj.linear.",
    "key.": "k_proj.linear.",
    "value.": "v_proj.linear.",
    "gate.": "g_proj.linear.",
    "output.": "o_proj.",
    "ln_x.": "g_norm.",
}
CHANNEL_MIXING = {
    "residual.norm.": "ffn_norm.",
    "mixer.time_maa_k": "ffn.key.mu",
    "mixer.time_maa_r": "ffn.receptance.mu",
    "mixer.key.": "ffn.key.linear.",
    "mixer.receptance.": "ffn.receptance.linear.",
    "mixer.value.": "ffn.value.",
}
NAMES = named(MIXING, CHANNEL_MIXING)


def _config(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    required(config, "hidden_act", "sqrelu", "sqrelu")
    norm, attention = layer_norm(checkpoint), BLOCK.format(0) + "attn."
    mixer = RWKV6Config(
        num_heads=config["num_heads"],
        expand_k=config.get("expand_k", 0.5),
        expand_v=config.get("expand_v", 1.0),
        mix_rank=checkpoint.size(attention + MIXING["time_maa_w1"], 0) // len(PARTS),
        decay_rank=checkpoint.size(attention + MIXING["time_decay_w1"], 0),
        group_norm_eps=norm.eps,
    )
    d_hidden = checkpoint.size(BLOCK.format(0) + "ffn.key.linear.weight", 0)
    layers = (mixer, RWKV6ChannelMixingConfig(d_hidden=d_hidden)) * config["num_hidden_layers"]
    return language_model(checkpoint, norm, layers, embedding_norm(checkpoint))


def _first_factor(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    """(D, parts * rank) of (parts * rank, D)."""
    given = checkpoint.read(name)
    return given.reshape(len(PARTS), -1, given.shape[-1])[ORDER].flatten(0, 1).T


def _second_factor(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    """(parts, rank, D) of (D, parts * rank)."""
    given = checkpoint.read(name)
    return given.T.reshape(len(PARTS), -1, len(given))[ORDER]


def _mixture(row: int, checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    return checkpoint.read(name)[row]


FLA_RWKV6 = Format(
    name="fla rwkv6",
    fits=of_type("rwkv6"),
    config=_config,
    names=lambda _: NAMES,
    reads={
        "*.mixer.time_maa_w1": _first_factor,
        "*.mixer.time_maa_w2": _second_factor,
        "*.mixer.time_decay_w[12]": transposed,
        **{f"*[02468].mixer.time_maa_{part}": partial(_mixture, row) for row, part in enumerate(THEIR_PARTS)},
    },
    unused=TIED,
)
