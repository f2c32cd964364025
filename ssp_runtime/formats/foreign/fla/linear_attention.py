"""Linear attention as flash-linear-attention saves it (`model_type` "linear_attn")."""

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.foreign.fla.common import TIED, named, norm_eps, shared, with_mlps
from ssp_runtime.mixers.linear_attention import FeatureMap, LinearAttentionConfig
from ssp_runtime.models.config import ModelConfig

FEATURE_MAPS: dict[str, FeatureMap] = {
    "elementwise_product": "product",
    "elu": "elu",
    "relu": "relu",
    "identity": "identity",
}
NAMES = named({"q_map.": "feature_map_q.", "k_map.": "feature_map_k.", "out_proj.": "o_proj.", "": ""})


def _config(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    for name in ("tie_feature_map_qk", "norm_q", "norm_k"):
        required(config, name, False, False)
    required(config, "elementwise_affine", True, True)
    feature_map = config.get("feature_map", "elementwise_product")
    if feature_map not in FEATURE_MAPS:
        raise ArtifactError(f"feature_map is {feature_map!r}; only {', '.join(FEATURE_MAPS)} can be served")
    mixer = LinearAttentionConfig(
        num_heads=config["num_heads"],
        expand_k=config.get("expand_k", 1.0),
        expand_v=config.get("expand_v", 1.0),
        feature_map=FEATURE_MAPS[feature_map],
        normalize=config.get("norm_feature_map", False),
        output_norm=True,
        norm_eps=norm_eps(checkpoint),
    )
    return with_mlps(checkpoint, (mixer,) * config["num_hidden_layers"])


FLA_LINEAR_ATTENTION = Format(
    name="fla linear_attn",
    fits=of_type("linear_attn"),
    config=_config,
    names=lambda _: NAMES,
    reads={"*.mixer.[kv]_proj.weight": shared},
    unused=TIED,
)
