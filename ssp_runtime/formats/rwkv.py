"""Checkpoints of RWKV-4 to RWKV-7 as their published code writes them (`.pth`)."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.weights import fitting
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
from ssp_runtime.models.model import LanguageModel

Weights = Mapping[str, Tensor]

NORM = NormConfig(kind="layer", eps=1e-5)

# Our prefixes and theirs. Layers 2n and 2n + 1 are the time mixing and the channel mixing of their block n.
OUTSIDE = {
    "backbone.embedding.": "emb.",
    "backbone.embedding_norm.": "blocks.0.ln0.",
    "backbone.norm_f.": "ln_out.",
    "lm_head.": "head.",
}
INSIDE = (
    {"residual.norm.": "ln1.", "mixer.coefficients.": "att.", "mixer.": "att."},
    {"residual.norm.": "ln2.", "mixer.": "ffn."},
)
# RWKV-7's first block has no values before its own to be drawn to; newer files hold these all the same.
UNUSED = ("blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2")


def load_rwkv(source: Path | Weights, *, group_norm_eps: float = 64e-5) -> LanguageModel:
    """The model of a checkpoint, in float32 and evaluation mode.

    Args:
        source: a `.pth` file, or the tensors in it by their names there.
        group_norm_eps: of the norm of each head in RWKV-5, 6 and 7, which checkpoints do not record.

    Raises:
        ArtifactError: no such file, or tensors that are not those of such a model.
    """
    weights = _read(source) if isinstance(source, Path) else source
    try:
        model = LanguageModel(_config(weights, group_norm_eps))
    except KeyError as error:
        raise ArtifactError(f"the RWKV checkpoint lacks {error.args[0]}") from error
    except ArtifactError:
        raise
    except ValueError as error:
        raise ArtifactError(f"the RWKV checkpoint does not make a model: {error}") from error
    _assign(model, weights)
    return model.eval()


def _read(path: Path) -> Weights:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no file {path}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ArtifactError(f"{path} cannot be read as a checkpoint: {error}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are
        raise ArtifactError(f"{path} cannot be read as a checkpoint of tensors: download or copy it again") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ArtifactError(f"{path} does not hold tensors by their names")
    return weights


def _config(weights: Weights, group_norm_eps: float) -> ModelConfig:
    vocab_size, d_model = (_size(weights, "emb.weight", dim) for dim in (0, 1))
    mixers = _mixers(weights, group_norm_eps)
    last = max(int(number) for name in weights for number in re.findall(r"^blocks\.(\d+)\.", name))
    return ModelConfig(
        d_model=d_model,
        embedding=TokenEmbeddingConfig(vocab_size=vocab_size),
        embedding_norm=NORM,
        layers=tuple(BlockConfig(mixer=mixer, norm=NORM) for _ in range(last + 1) for mixer in mixers),
        head=LanguageModelHeadConfig(tied=False),
        final_norm=NORM,
    )


def _mixers(weights: Weights, eps: float) -> tuple[MixerConfig, MixerConfig]:
    """Of every block, as the tensors of the first one tell."""
    for mark, time_mixing, channel_mixing in VERSIONS:
        if f"blocks.0.att.{mark}" in weights:
            return time_mixing(weights, eps), channel_mixing(d_hidden=_size(weights, "blocks.0.ffn.key.weight", 0))
    raise ValueError("its first block holds none of the tensors that tell versions 4 to 7")


def _size(weights: Weights, name: str, dim: int) -> int:
    shape = weights[name].shape
    if dim >= len(shape) or not shape[dim]:
        raise ArtifactError(f"{name} has no size in dimension {dim}: its shape is {tuple(shape)}")
    return shape[dim]


def _rwkv4(_weights: Weights, _eps: float) -> RWKV4Config:
    return RWKV4Config()


def _rwkv5(weights: Weights, eps: float) -> RWKV5Config:
    num_heads = _size(weights, "blocks.0.att.time_decay", 0)
    version: Version = "5.1" if weights["blocks.0.att.time_decay"].numel() == num_heads else "5.2"
    if "blocks.0.att.gate.weight" not in weights:
        version = "5.0"
    return RWKV5Config(num_heads=num_heads, version=version, group_norm_eps=eps)


def _rwkv6(weights: Weights, eps: float) -> RWKV6Config:
    return RWKV6Config(
        num_heads=_size(weights, "blocks.0.att.time_faaaa", 0),
        mix_rank=_size(weights, "blocks.0.att.time_maa_w2", 1),
        decay_rank=_size(weights, "blocks.0.att.time_decay_w1", 1),
        group_norm_eps=eps,
    )


def _rwkv7(weights: Weights, eps: float) -> RWKV7Config:
    return RWKV7Config(
        num_heads=_size(weights, "blocks.0.att.r_k", 0),
        decay_rank=_size(weights, "blocks.0.att.w1", 1),
        rate_rank=_size(weights, "blocks.0.att.a1", 1),
        value_rank=next((_size(weights, name, 1) for name in weights if name.endswith("att.v1")), 1),
        gate_rank=_size(weights, "blocks.0.att.g1", 1),
        group_norm_eps=eps,
    )


# A tensor that only this version and later ones have, newest first, and what the version's blocks are made of.
VERSIONS: tuple[tuple[str, Callable[[Weights, float], MixerConfig], Callable[..., MixerConfig]], ...] = (
    ("r_k", _rwkv7, RWKV7ChannelMixingConfig),
    ("time_maa_x", _rwkv6, RWKV6ChannelMixingConfig),
    ("ln_x.weight", _rwkv5, RWKV4ChannelMixingConfig),
    ("time_first", _rwkv4, RWKV4ChannelMixingConfig),
)


@torch.no_grad()
def _assign(model: LanguageModel, weights: Weights) -> None:
    """A vector of ours may have further dimensions in theirs."""
    own = {their_name(name): parameter for name, parameter in model.named_parameters()}
    if extra := sorted(weights.keys() - own.keys()):
        raise ArtifactError(f"the checkpoint holds {extra[0]}, which no RWKV of its version has")
    for name, parameter in own.items():
        if name not in weights:
            if name not in UNUSED:
                raise ArtifactError(f"the RWKV checkpoint lacks {name}")
            parameter.zero_()
            continue
        given = weights[name].flatten() if parameter.ndim == 1 else weights[name]
        parameter.copy_(fitting(name, given, parameter))


def their_name(name: str) -> str:
    """What the published code calls a parameter of ours."""
    table, theirs = OUTSIDE, ""
    if match := re.match(r"backbone\.layers\.(\d+)\.", name):
        block, part = divmod(int(match[1]), 2)
        table, theirs, name = INSIDE[part], f"blocks.{block}.", name.removeprefix(match[0])
    prefix = next(prefix for prefix in table if name.startswith(prefix))
    return theirs + table[prefix] + name.removeprefix(prefix)
