"""What all models of flash-linear-attention have in common: settings, names, and a gated MLP after each mixer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import required
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

BLOCK = "model.layers.{}."
OUTSIDE = {
    "backbone.embedding.": "model.embeddings.",
    "backbone.embedding_norm.": "model.layers.0.pre_norm.",
    "backbone.norm_f.": "model.norm.",
    "lm_head.": "lm_head.",
}
MLP = {"residual.norm.": "mlp_norm.", "mixer.": "mlp."}
TIED = ("lm_head.weight",)  # a copy of the embedding in models that tie the two


def language_model(
    checkpoint: Checkpoint, norm: NormConfig, layers: Sequence[MixerConfig], embedding_norm: NormConfig | None = None
) -> ModelConfig:
    """Of its settings, around the layers given. Raises `ArtifactError` for those that no model of ours has."""
    config = checkpoint.config
    required(config, "attn", None, None)
    required(config, "attnres_block_size", None, None)
    return ModelConfig(
        d_model=config["hidden_size"],
        embedding=TokenEmbeddingConfig(vocab_size=config["vocab_size"]),
        embedding_norm=embedding_norm,
        layers=tuple(BlockConfig(mixer=mixer, norm=norm) for mixer in layers),
        head=LanguageModelHeadConfig(tied=config.get("tie_word_embeddings", False)),
        final_norm=norm,
    )


def with_mlps(checkpoint: Checkpoint, mixers: Sequence[MixerConfig]) -> ModelConfig:
    """The same with RMS norms and a gated MLP after each of the mixers."""
    required(checkpoint.config, "hidden_act", "swish", "swish")
    mlp = GatedMLPConfig(d_hidden=checkpoint.size(BLOCK.format(0) + "mlp.gate_proj.weight", 0))
    layers = [layer for mixer in mixers for layer in (mixer, mlp)]
    return language_model(checkpoint, NormConfig(eps=norm_eps(checkpoint)), layers)


def named(mixer: Mapping[str, str], channel_mixing: Mapping[str, str] = MLP) -> Names:
    """The names of models whose mixer has those names within `attn.`, ours to theirs."""
    within = {f"mixer.{ours}": f"attn.{theirs}" for ours, theirs in mixer.items()}
    return Names(outside=OUTSIDE, block=BLOCK, inside=({"residual.norm.": "attn_norm.", **within}, channel_mixing))


def norm_eps(checkpoint: Checkpoint) -> float:
    return float(checkpoint.config.get("norm_eps", 1e-6))


def short_convolution(checkpoint: Checkpoint, otherwise: bool) -> int | None:
    """Its width; None if there is none. `otherwise` says whether there is one where the settings do not."""
    config = checkpoint.config
    return config.get("conv_size", 4) if config.get("use_short_conv", otherwise) else None


def transposed(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    return checkpoint.read(name).T


def shared(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    """Rows of heads. Where several heads of ours have one of theirs in common (`num_kv_heads`) each gets a copy."""
    given, num_heads = checkpoint.read(name), checkpoint.config["num_heads"]
    num_groups = checkpoint.config.get("num_kv_heads") or num_heads
    if num_heads % num_groups or len(given) % num_groups:
        raise ArtifactError(f"{name}: {len(given)} rows are not those of {num_groups} heads shared by {num_heads}")
    groups = given.reshape(num_groups, -1, *given.shape[1:])
    return groups.repeat_interleave(num_heads // num_groups, 0).flatten(0, 1)


def convolutions(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """Those of queries, keys and values, one below the other; the name is that of the queries'."""
    keys, values = (shared(checkpoint, name.replace("q_conv1d", part), wanted) for part in ("k_conv1d", "v_conv1d"))
    return torch.cat([checkpoint.read(name), keys, values])
