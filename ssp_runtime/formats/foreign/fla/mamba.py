"""Mamba and Mamba-2 as flash-linear-attention saves them: tensors as `transformers` calls them, other settings."""

from collections.abc import Mapping
from dataclasses import replace

from ssp_runtime.formats.checkpoint import Checkpoint, Tensors
from ssp_runtime.formats.foreign.base import required
from ssp_runtime.formats.foreign.transformers_mamba import TRANSFORMERS_MAMBA
from ssp_runtime.formats.foreign.transformers_mamba2 import TRANSFORMERS_MAMBA2
from ssp_runtime.models.config import ModelConfig

# Theirs, and what `transformers` calls it.
MAMBA = {"norm_eps": "layer_norm_epsilon", "dt_rank": "time_step_rank"}
MAMBA2 = {"norm_eps": "layer_norm_epsilon", "dt_limit": "time_step_limit", "rmsnorm": "rms_norm"}


def _mamba(checkpoint: Checkpoint) -> ModelConfig:
    return TRANSFORMERS_MAMBA.config(_renamed(checkpoint, MAMBA))


def _mamba2(checkpoint: Checkpoint) -> ModelConfig:
    required(checkpoint.config, "D_has_hdim", False, False)
    required(checkpoint.config, "norm_before_gate", False, False)
    return TRANSFORMERS_MAMBA2.config(_renamed(checkpoint, MAMBA2))


def _renamed(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """Its settings under the names in `transformers`. The embedding is tied only where they say so."""
    settings = Tensors({}, checkpoint.path)
    given = {"tie_word_embeddings": False, **checkpoint.config}
    settings.config = {names.get(name, name): value for name, value in given.items()}
    return settings


def _is_of(model_type: str, checkpoint: Checkpoint) -> bool:
    return checkpoint.config.get("model_type") == model_type and "norm_eps" in checkpoint.config


FLA_MAMBA = replace(TRANSFORMERS_MAMBA, name="fla mamba", fits=lambda it: _is_of("mamba", it), config=_mamba)
FLA_MAMBA2 = replace(TRANSFORMERS_MAMBA2, name="fla mamba2", fits=lambda it: _is_of("mamba2", it), config=_mamba2)
