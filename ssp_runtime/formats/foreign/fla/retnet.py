"""RetNet as flash-linear-attention saves it (`model_type` "retnet")."""

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.foreign.fla.common import TIED, norm_eps, shared, with_mlps
from ssp_runtime.formats.foreign.fla.gla import gated_names
from ssp_runtime.mixers.retnet import RetNetConfig
from ssp_runtime.models.config import ModelConfig


def _config(checkpoint: Checkpoint) -> ModelConfig:
    """`use_short_conv` may be anything: its model does not hand it to its layers."""
    config = checkpoint.config
    required(config, "feature_map", None, None)
    required(config, "elementwise_affine", True, True)
    mixer = RetNetConfig(
        num_heads=config["num_heads"],
        expand_k=config.get("expand_k", 1.0),
        expand_v=config.get("expand_v", 2.0),
        rotary="rope",
        normalize_scores=False,
        output_gate=config.get("use_output_gate", True),
        norm_weight=True,
        norm_eps=norm_eps(checkpoint),
    )
    return with_mlps(checkpoint, (mixer,) * config["num_hidden_layers"])


FLA_RETNET = Format(
    name="fla retnet",
    fits=of_type("retnet"),
    config=_config,
    names=gated_names,
    reads={"*.mixer.[kv]_proj.weight": shared},
    unused=TIED,
)
