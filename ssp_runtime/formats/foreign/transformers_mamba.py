"""Mamba and Falcon Mamba as `transformers` saves them (`model_type` "mamba", "falcon_mamba")."""

import math
from collections.abc import Mapping
from typing import Any

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

INSIDE = {
    "residual.norm.": "norm.",
    "mixer.inner.ssp.coefficients.": "mixer.",
    "mixer.inner.ssp.": "mixer.",
    "mixer.inner.": "mixer.",
    "": "",
}


def _names(checkpoint: Checkpoint) -> Names:
    """The first files of this type call the embedding as the original code does."""
    embedding = "embedding" if "backbone.embedding.weight" in checkpoint else "embeddings"
    outside = {"backbone.embedding.": f"backbone.{embedding}.", "": ""}
    return Names(outside=outside, block="backbone.layers.{}.", inside=(INSIDE,))


def _config(checkpoint: Checkpoint) -> ModelConfig:
    """`residual_in_fp32` may be anything: our residual stream is never narrower than float32."""
    config = checkpoint.config
    required(config, "hidden_act", "silu", "silu")
    norm = NormConfig(eps=config["layer_norm_epsilon"])
    mixer = MambaConfig(
        ssp=_ssp(config),
        expand=config["expand"],
        d_conv=config["conv_kernel"],
        bias=config.get("use_bias", False),
        conv_bias=config.get("use_conv_bias", True),
    )
    return ModelConfig(
        d_model=config["hidden_size"],
        embedding=TokenEmbeddingConfig(vocab_size=config["vocab_size"]),
        layers=(BlockConfig(mixer=mixer, norm=norm),) * config["num_hidden_layers"],
        head=LanguageModelHeadConfig(tied=config.get("tie_word_embeddings", True)),
        final_norm=norm,
    )


def _ssp(config: Mapping[str, Any]) -> S6Config:
    rank = config.get("time_step_rank", "auto")
    return S6Config(
        d_state=config["state_size"],
        dt_rank=math.ceil(config["hidden_size"] / 16) if rank == "auto" else rank,
        norm_eps=config.get("mixer_rms_eps", 1e-6) if config["model_type"] == "falcon_mamba" else None,
    )


TRANSFORMERS_MAMBA = Format(
    name="transformers mamba",
    fits=of_type("mamba", "falcon_mamba"),
    config=_config,
    names=_names,
    unused=("lm_head.weight",),
)
