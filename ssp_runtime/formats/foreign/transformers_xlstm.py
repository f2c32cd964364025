"""xLSTM (mLSTM blocks, as xLSTM 7B has them) as `transformers` saves it (`model_type` "xlstm")."""

from collections.abc import Mapping
from typing import Any

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.mixers.mlstm import MLSTMConfig
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

NAMES = Names(
    outside={
        "backbone.embedding.": "backbone.embeddings.",
        "backbone.norm_f.": "backbone.out_norm.",
        "lm_head.": "lm_head.",
    },
    block="backbone.blocks.{}.",
    inside=(
        {
            "residual.norm.": "norm_mlstm.",
            "mixer.q_proj.": "mlstm_layer.q.",
            "mixer.k_proj.": "mlstm_layer.k.",
            "mixer.v_proj.": "mlstm_layer.v.",
            "mixer.igate.": "mlstm_layer.igate_preact.",
            "mixer.fgate.": "mlstm_layer.fgate_preact.",
            "mixer.ogate.": "mlstm_layer.ogate_preact.",
            "mixer.norm.": "mlstm_layer.multihead_norm.",
            "mixer.": "mlstm_layer.",
        },
        {
            "residual.norm.": "norm_ffn.",
            "mixer.gate_proj.": "ffn.proj_up_gate.",
            "mixer.up_proj.": "ffn.proj_up.",
            "mixer.down_proj.": "ffn.proj_down.",
        },
    ),
)
# What our blocks do, which is what they do there unless told otherwise.
FIXED = {
    "use_bias": False,
    "add_out_norm": True,
    "weight_mode": "single",
    "tie_word_embeddings": False,
    "v_dim_factor": 1.0,
    "eps": 1e-6,
}


def _config(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    for name, value in FIXED.items():
        required(config, name, value, value)
    norm = NormConfig(eps=config["norm_eps"])
    mlstm = MLSTMConfig(
        num_heads=config["num_heads"],
        expand_k=config["qk_dim_factor"],
        gate_soft_cap=config.get("gate_soft_cap", 15.0),
        norm_eps=norm.eps,
    )
    mlp = GatedMLPConfig(d_hidden=_d_hidden(config))
    block = BlockConfig(mixer=mlstm, norm=norm), BlockConfig(mixer=mlp, norm=norm)
    return ModelConfig(
        d_model=_either(config, "hidden_size", "embedding_dim"),
        embedding=TokenEmbeddingConfig(vocab_size=config["vocab_size"]),
        layers=block * _either(config, "num_hidden_layers", "num_blocks"),
        head=LanguageModelHeadConfig(tied=False, soft_cap=config.get("output_logit_soft_cap", 30.0)),
        final_norm=norm,
    )


def _either(config: Mapping[str, Any], name: str, first_name: str) -> int:
    """A size under its name, or under the one that the first files of this type have."""
    return int(config[name] if name in config else config[first_name])


def _d_hidden(config: Mapping[str, Any]) -> int:
    """Rounded as there: up to a multiple, but for a fraction above one."""
    multiple = config["ffn_round_up_to_multiple_of"]
    wanted = _either(config, "hidden_size", "embedding_dim") * config["ffn_proj_factor"]
    return int((wanted + multiple - 1) // multiple * multiple)


TRANSFORMERS_XLSTM = Format(
    name="transformers xlstm",
    fits=of_type("xlstm"),
    config=_config,
    names=lambda _: NAMES,
)
