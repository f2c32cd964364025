"""Mamba-2 as `transformers` saves it (`model_type` "mamba2")."""

import math
from collections.abc import Mapping
from typing import Any

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.mamba2 import Mamba2Config
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

INSIDE = {"residual.norm.": "norm.", "mixer.coefficients.": "mixer.", "": ""}
NAMES = Names(
    outside={"backbone.embedding.": "backbone.embeddings.", "": ""},
    block="backbone.layers.{}.",
    inside=(INSIDE,),
)


def _config(checkpoint: Checkpoint) -> ModelConfig:
    """`residual_in_fp32` may be anything: our residual stream is never narrower than float32."""
    config = checkpoint.config
    required(config, "hidden_act", "silu", "silu")
    required(config, "rms_norm", True, True)
    norm = NormConfig(eps=config["layer_norm_epsilon"])
    mixer = Mamba2Config(
        expand=config["expand"],
        d_conv=config["conv_kernel"],
        d_state=config["state_size"],
        head_dim=config["head_dim"],
        n_groups=config["n_groups"],
        time_step_limit=_time_step_limit(config),
        bias=config.get("use_bias", False),
        conv_bias=config.get("use_conv_bias", True),
        norm_eps=norm.eps,
    )
    return ModelConfig(
        d_model=config["hidden_size"],
        embedding=TokenEmbeddingConfig(vocab_size=config["vocab_size"]),
        layers=(BlockConfig(mixer=mixer, norm=norm),) * config["num_hidden_layers"],
        head=LanguageModelHeadConfig(tied=config.get("tie_word_embeddings", False)),
        final_norm=norm,
    )


def _time_step_limit(config: Mapping[str, Any]) -> tuple[float, float] | None:
    """Infinity is a number in older files, and an object around its name in newer ones."""
    given = config.get("time_step_limit", (0.0, math.inf))
    least, most = (float(value["__float__"] if isinstance(value, dict) else value) for value in given)
    return None if (least, most) == (0.0, math.inf) else (least, most)


TRANSFORMERS_MAMBA2 = Format(
    name="transformers mamba2",
    fits=of_type("mamba2"),
    config=_config,
    names=lambda _: NAMES,
    unused=("lm_head.weight",),
)
