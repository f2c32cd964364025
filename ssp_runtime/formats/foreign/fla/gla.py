"""GLA as flash-linear-attention saves it (`model_type` "gla")."""

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.foreign.fla.common import (
    BLOCK,
    TIED,
    convolutions,
    named,
    norm_eps,
    shared,
    short_convolution,
    with_mlps,
)
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.gla import GLAConfig
from ssp_runtime.models.config import ModelConfig


def _config(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    required(config, "feature_map", None, None)
    required(config, "clamp_min", None, None)
    required(config, "elementwise_affine", True, True)
    mixer = GLAConfig(
        num_heads=config["num_heads"],
        expand_k=config.get("expand_k", 0.5),
        expand_v=config.get("expand_v", 1.0),
        gate_rank=checkpoint.size(BLOCK.format(0) + "attn.gk_proj.0.weight", 0),
        d_conv=short_convolution(checkpoint, otherwise=False),
        output_gate=config.get("use_output_gate", True),
        norm_eps=norm_eps(checkpoint),
    )
    return with_mlps(checkpoint, (mixer,) * config["num_hidden_layers"])


def gated_names(checkpoint: Checkpoint) -> Names:
    """The norm of a head is named after whether it was computed together with the gate."""
    fused = checkpoint.config.get("fuse_norm", True) and checkpoint.config.get("use_output_gate", True)
    norm = "g_norm_swish_gate." if fused else "g_norm."
    return named({"g_norm.": norm, "out_proj.": "o_proj.", "conv1d.": "q_conv1d.", "": ""})


FLA_GLA = Format(
    name="fla gla",
    fits=of_type("gla"),
    config=_config,
    names=gated_names,
    reads={
        "*.mixer.conv1d.weight": convolutions,
        "*.mixer.[kv]_proj.weight": shared,
        "*.mixer.gk_proj.1.*": shared,
    },
    unused=TIED,
)
