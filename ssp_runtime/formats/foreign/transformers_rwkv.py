"""RWKV-4 as `transformers` saves it (`model_type` "rwkv")."""

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.rwkv4 import RWKV4ChannelMixingConfig, RWKV4Config
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)

NAMES = Names(
    outside={
        "backbone.embedding.": "rwkv.embeddings.",
        "backbone.embedding_norm.": "rwkv.blocks.0.pre_ln.",
        "backbone.norm_f.": "rwkv.ln_out.",
        "lm_head.": "head.",
    },
    block="rwkv.blocks.{}.",
    inside=(
        {
            "residual.norm.": "ln1.",
            "mixer.coefficients.": "attention.",
            "mixer.time_mix_k": "attention.time_mix_key",
            "mixer.time_mix_v": "attention.time_mix_value",
            "mixer.time_mix_r": "attention.time_mix_receptance",
            "mixer.": "attention.",
        },
        {
            "residual.norm.": "ln2.",
            "mixer.time_mix_k": "feed_forward.time_mix_key",
            "mixer.time_mix_r": "feed_forward.time_mix_receptance",
            "mixer.": "feed_forward.",
        },
    ),
)


def _config(checkpoint: Checkpoint) -> ModelConfig:
    """There the residual stream is halved after every `rescale_every` blocks, and what is added to it accordingly; to a
    norm that is an eps four times as large."""
    config = checkpoint.config
    d_model, every = config["hidden_size"], config.get("rescale_every", 6)
    required(config, "attention_hidden_size", d_model, d_model)
    mixers = RWKV4Config(), RWKV4ChannelMixingConfig(d_hidden=config.get("intermediate_size"))

    def norm(blocks_before: int, eps: float) -> NormConfig:
        return NormConfig(kind="layer", eps=eps * 4 ** (blocks_before // every if every > 0 else 0))

    eps, num_blocks = config["layer_norm_epsilon"], config["num_hidden_layers"]
    return ModelConfig(
        d_model=d_model,
        embedding=TokenEmbeddingConfig(vocab_size=config["vocab_size"]),
        embedding_norm=norm(0, eps),
        layers=tuple(BlockConfig(mixer=mixer, norm=norm(i, eps)) for i in range(num_blocks) for mixer in mixers),
        head=LanguageModelHeadConfig(tied=config.get("tie_word_embeddings", False)),
        final_norm=norm(num_blocks, 1e-5),
    )


TRANSFORMERS_RWKV = Format(
    name="transformers rwkv",
    fits=of_type("rwkv"),
    config=_config,
    names=lambda _: NAMES,
    unused=("head.weight",),
)
