"""RWKV-4 to RWKV-7 as their published code writes them (`.pth`)."""

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.rwkv4 import RWKV4ChannelMixingConfig, RWKV4Config
from ssp_runtime.mixers.rwkv5 import RWKV5Config, Version
from ssp_runtime.mixers.rwkv6 import RWKV6ChannelMixingConfig, RWKV6Config
from ssp_runtime.mixers.rwkv7 import RWKV7ChannelMixingConfig, RWKV7Config
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

NORM = NormConfig(kind="layer", eps=1e-5)
NAMES = Names(
    outside={
        "backbone.embedding.": "emb.",
        "backbone.embedding_norm.": "blocks.0.ln0.",
        "backbone.norm_f.": "ln_out.",
        "lm_head.": "head.",
    },
    block="blocks.{}.",
    inside=(
        {"residual.norm.": "ln1.", "mixer.coefficients.": "att.", "mixer.": "att."},
        {"residual.norm.": "ln2.", "mixer.": "ffn."},
    ),
)


def rwkv(group_norm_eps: float = 64e-5) -> Format:
    """`group_norm_eps` is of the norm of each head in RWKV-5, 6 and 7, which checkpoints do not record: BlinkDL's code
    has 64e-5, rwkv.cpp 1e-5 for version 5."""
    return Format(
        name="RWKV",
        fits=lambda checkpoint: "blocks.0.ffn.key.weight" in checkpoint and "emb.weight" in checkpoint,
        config=partial(_config, eps=group_norm_eps),
        names=lambda _: NAMES,
        reads={"backbone.layers.0.mixer.v[012]": _no_values},
    )


def _no_values(_checkpoint: Checkpoint, _name: str, wanted: Tensor) -> Tensor:
    """RWKV-7's first block has no values before its own to be drawn to; newer files hold these all the same."""
    return torch.zeros_like(wanted)


def _config(checkpoint: Checkpoint, *, eps: float) -> ModelConfig:
    vocab_size, d_model = (checkpoint.size("emb.weight", dim) for dim in (0, 1))
    mixers = _mixers(checkpoint, eps)
    last = max(int(number) for name in checkpoint.names() for number in re.findall(r"^blocks\.(\d+)\.", name))
    return ModelConfig(
        d_model=d_model,
        embedding=TokenEmbeddingConfig(vocab_size=vocab_size),
        embedding_norm=NORM,
        layers=tuple(BlockConfig(mixer=mixer, norm=NORM) for _ in range(last + 1) for mixer in mixers),
        head=LanguageModelHeadConfig(tied=False),
        final_norm=NORM,
    )


def _mixers(checkpoint: Checkpoint, eps: float) -> tuple[MixerConfig, MixerConfig]:
    """Of every block, as the tensors of the first one tell."""
    for mark, time_mixing, channel_mixing in VERSIONS:
        if f"blocks.0.att.{mark}" in checkpoint:
            return time_mixing(checkpoint, eps), channel_mixing(d_hidden=checkpoint.size("blocks.0.ffn.key.weight", 0))
    raise ValueError("its first block holds none of the tensors that tell versions 4 to 7")


def _rwkv4(_checkpoint: Checkpoint, _eps: float) -> RWKV4Config:
    return RWKV4Config()


def _rwkv5(checkpoint: Checkpoint, eps: float) -> RWKV5Config:
    num_heads = checkpoint.size("blocks.0.att.time_decay", 0)
    version: Version = "5.1" if math.prod(checkpoint.shape("blocks.0.att.time_decay")) == num_heads else "5.2"
    if "blocks.0.att.gate.weight" not in checkpoint:
        version = "5.0"
    return RWKV5Config(num_heads=num_heads, version=version, group_norm_eps=eps)


def _rwkv6(checkpoint: Checkpoint, eps: float) -> RWKV6Config:
    return RWKV6Config(
        num_heads=checkpoint.size("blocks.0.att.time_faaaa", 0),
        mix_rank=checkpoint.size("blocks.0.att.time_maa_w2", 1),
        decay_rank=checkpoint.size("blocks.0.att.time_decay_w1", 1),
        group_norm_eps=eps,
    )


def _rwkv7(checkpoint: Checkpoint, eps: float) -> RWKV7Config:
    return RWKV7Config(
        num_heads=checkpoint.size("blocks.0.att.r_k", 0),
        decay_rank=checkpoint.size("blocks.0.att.w1", 1),
        rate_rank=checkpoint.size("blocks.0.att.a1", 1),
        value_rank=next((checkpoint.size(name, 1) for name in checkpoint.names() if name.endswith("att.v1")), 1),
        gate_rank=checkpoint.size("blocks.0.att.g1", 1),
        group_norm_eps=eps,
    )


# A tensor that only this version and later ones have, newest first, and what the version's blocks are made of.
VERSIONS: tuple[tuple[str, Callable[[Checkpoint, float], MixerConfig], Callable[..., MixerConfig]], ...] = (
    ("r_k", _rwkv7, RWKV7ChannelMixingConfig),
    ("time_maa_x", _rwkv6, RWKV6ChannelMixingConfig),
    ("ln_x.weight", _rwkv5, RWKV4ChannelMixingConfig),
    ("time_first", _rwkv4, RWKV4ChannelMixingConfig),
)

RWKV = rwkv()
