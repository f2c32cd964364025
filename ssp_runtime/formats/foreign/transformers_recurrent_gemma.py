"""RecurrentGemma as `transformers` saves it (`model_type` "recurrent_gemma")."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.griffin import GriffinConfig
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.mixers.rg_lru import RGLRUConfig
from ssp_runtime.mixers.window_attention import WindowAttentionConfig
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

TEMPORAL = {
    "recurrent": {
        "residual.norm.": "temporal_pre_norm.",
        "mixer.out_proj.": "temporal_block.linear_out.",
        "mixer.conv1d.": "temporal_block.conv_1d.",
        "mixer.rg_lru.coefficients.Lambda": "temporal_block.rg_lru.recurrent_param",
        "mixer.rg_lru.input_gate.": "temporal_block.rg_lru.input_gate_",
        "mixer.rg_lru.recurrent_gate.": "temporal_block.rg_lru.recurrent_gate_",
        "mixer.": "temporal_block.",
    },
    "attention": {
        "residual.norm.": "temporal_pre_norm.",
        "mixer.out_proj.": "temporal_block.o_proj.",
        "mixer.": "temporal_block.",
    },
}
CHANNEL = {"residual.norm.": "channel_pre_norm.", "mixer.": "mlp_block."}


def _names(checkpoint: Checkpoint) -> Names:
    block_types = _block_types(checkpoint.config)
    return Names(
        outside={
            "backbone.embedding.": "model.embed_tokens.",
            "backbone.norm_f.": "model.final_norm.",
            "lm_head.": "lm_head.",
        },
        block="model.layers.{}.",
        inside=tuple(table for kind in block_types for table in (TEMPORAL[kind], CHANNEL)),
        blocks=len(block_types),
    )


def norm_weight(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """Their norms weigh by 1 + w, where w may be too small to be seen beside 1 in bfloat16."""
    weight = checkpoint.read(name)
    return 1 + weight.to(wanted.dtype) if weight.is_floating_point() else weight


def _config(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    required(config, "hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh")
    required(config, "embeddings_scale_by_sqrt_dim", True, True)
    mixers: dict[str, MixerConfig] = {"recurrent": _recurrent(config), "attention": _attention(config)}
    return model_config(
        [mixers[kind] for kind in _block_types(config)],
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        d_hidden=config["intermediate_size"] // 2,
        eps=config["rms_norm_eps"],
        head=LanguageModelHeadConfig(
            tied=config.get("tie_word_embeddings", True), soft_cap=config.get("logits_soft_cap", 30.0)
        ),
    )


def model_config(
    mixers: Sequence[MixerConfig],
    *,
    vocab_size: int,
    d_model: int,
    d_hidden: int,
    eps: float,
    head: LanguageModelHeadConfig,
) -> ModelConfig:
    """Each block is one of these and an MLP; embeddings are scaled by sqrt(d_model), in bfloat16 as in training."""
    norm = NormConfig(eps=eps)
    mlp = GatedMLPConfig(d_hidden=d_hidden, activation="gelu_tanh", bias=True)
    scale = float(torch.tensor(d_model**0.5, dtype=torch.bfloat16))
    return ModelConfig(
        d_model=d_model,
        embedding=TokenEmbeddingConfig(vocab_size=vocab_size, scale=scale),
        layers=tuple(BlockConfig(mixer=each, norm=norm) for mixer in mixers for each in (mixer, mlp)),
        head=head,
        final_norm=norm,
    )


def _block_types(config: Mapping[str, Any]) -> list[str]:
    """Of each block; the pattern repeats."""
    pattern = config.get("block_types") or ("recurrent", "recurrent", "attention")
    if unknown := set(pattern) - TEMPORAL.keys():
        raise ArtifactError(f"block_types names {min(unknown)!r}; only {', '.join(map(repr, TEMPORAL))} can be served")
    return list(islice(cycle(pattern), config["num_hidden_layers"]))


def _recurrent(config: Mapping[str, Any]) -> GriffinConfig:
    return GriffinConfig(
        lru_width=config.get("lru_width"),
        d_conv=config.get("conv1d_width", 4),
        rg_lru=RGLRUConfig(num_heads=config["num_attention_heads"]),
    )


def _attention(config: Mapping[str, Any]) -> WindowAttentionConfig:
    """Files from before `rope_parameters` have these settings among the others."""
    rotary = {**config, **(config.get("rope_parameters") or {})}
    required(rotary, "rope_type", "default", "default")
    required(config, "rope_scaling", None, None)
    return WindowAttentionConfig(
        num_heads=config["num_attention_heads"],
        num_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        window=config["attention_window_size"],
        partial_rotary_factor=rotary.get("partial_rotary_factor", 0.5),
        rotary_base=rotary.get("rope_theta", 10_000.0),
        bias=config.get("attention_bias", False),
    )


TRANSFORMERS_RECURRENT_GEMMA = Format(
    name="transformers recurrent_gemma",
    fits=of_type("recurrent_gemma"),
    config=_config,
    names=_names,
    reads={"*norm*.weight": norm_weight},
    unused=("lm_head.weight",),
)
