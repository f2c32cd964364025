"""Mamba and Mamba-2 as their authors' code (`mamba_ssm`) saves them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign import transformers_mamba, transformers_mamba2
from ssp_runtime.formats.foreign.base import Format, required
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.mamba2 import Mamba2Config
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

# Settings in `ssm_cfg` that say where parameters start, or how the same is computed.
WITHOUT_EFFECT = {
    "layer",
    "dt_min",
    "dt_max",
    "dt_init",
    "dt_scale",
    "dt_init_floor",
    "use_fast_path",
    "conv_init",
    "A_init_range",
    "chunk_size",
    "use_mem_eff_path",
    "sequence_parallel",
}

# What our Mamba-2 does, as theirs does unless told otherwise.
FIXED_IN_MAMBA2 = {"d_ssm": None, "D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False}


def _names(checkpoint: Checkpoint) -> Names:
    inside = transformers_mamba2.INSIDE if _layer(checkpoint.config) == "Mamba2" else transformers_mamba.INSIDE
    return Names(outside={"": ""}, block="backbone.layers.{}.", inside=(inside,))


def _config(checkpoint: Checkpoint) -> ModelConfig:
    """`residual_in_fp32` may be anything: our residual stream is never narrower than float32."""
    config = checkpoint.config
    required(config, "d_intermediate", 0, 0)
    required(config, "attn_layer_idx", [], [])
    norm = NormConfig(kind="rms" if config.get("rms_norm", True) else "layer")
    mixer = MIXERS[_layer(config)](config["d_model"], dict(config.get("ssm_cfg") or {}))
    return ModelConfig(
        d_model=config["d_model"],
        embedding=TokenEmbeddingConfig(vocab_size=config["vocab_size"]),
        layers=(BlockConfig(mixer=mixer, norm=norm),) * config["n_layer"],
        head=LanguageModelHeadConfig(tied=config.get("tie_embeddings", True)),
        final_norm=norm,
    )


def _layer(config: Mapping[str, Any]) -> str:
    layer = str((config.get("ssm_cfg") or {}).get("layer", "Mamba1"))
    if layer not in MIXERS:
        raise ArtifactError(f"its layers are {layer}; only {' and '.join(MIXERS)} can be served")
    return layer


def _mamba(d_model: int, settings: dict[str, Any]) -> MambaConfig:
    rank = settings.pop("dt_rank", "auto")
    ssp = S6Config(d_state=settings.pop("d_state", 16), dt_rank=math.ceil(d_model / 16) if rank == "auto" else rank)
    return MambaConfig(ssp=ssp, **_shared(settings))


def _mamba2(_: int, settings: dict[str, Any]) -> Mamba2Config:
    for name, value in FIXED_IN_MAMBA2.items():
        required(settings, name, value, value)
        settings.pop(name, None)
    least, most = settings.pop("dt_limit", (0.0, math.inf))
    return Mamba2Config(
        d_state=settings.pop("d_state", 128),
        head_dim=settings.pop("headdim", 64),
        n_groups=settings.pop("ngroups", 1),
        time_step_limit=None if (least, most) == (0.0, math.inf) else (least, most),
        **_shared(settings),
    )


def _shared(settings: dict[str, Any]) -> dict[str, Any]:
    """What both have; it has to be all that is left."""
    known: dict[str, Any] = {
        name: settings.pop(name) for name in ("d_conv", "expand", "bias", "conv_bias") if name in settings
    }
    if unknown := sorted(settings.keys() - WITHOUT_EFFECT):
        raise ArtifactError(f"its ssm_cfg has the setting {unknown[0]}, which cannot be served")
    return known


MIXERS: dict[str, Callable[[int, dict[str, Any]], MixerConfig]] = {"Mamba1": _mamba, "Mamba2": _mamba2}


def _unpadded(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """Without the rows that fill the vocabulary up: tokens that no text has, and that never were trained."""
    given, size = checkpoint.read(name), len(wanted)
    padded = size + -size % checkpoint.config.get("pad_vocab_size_multiple", 8)
    return given[:size] if len(given) == padded else given


STATE_SPACES = Format(
    name="mamba_ssm",
    fits=lambda checkpoint: (
        {"d_model", "n_layer"} <= checkpoint.config.keys()
        and "model_type" not in checkpoint.config
        and "backbone.layers.0.mixer.A_log" in checkpoint
    ),
    config=_config,
    names=_names,
    reads={"backbone.embedding.weight": _unpadded, "lm_head.weight": _unpadded},
    unused=("lm_head.weight",),
)
