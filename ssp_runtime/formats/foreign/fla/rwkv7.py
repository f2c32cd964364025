"""RWKV-7 as flash-linear-attention saves it (`model_type` "rwkv7")."""

from functools import partial

import torch
from torch import Tensor

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.foreign.fla.common import BLOCK, TIED, language_model, named, transposed
from ssp_runtime.mixers.rwkv7 import RWKV7ChannelMixingConfig, RWKV7Config
from ssp_runtime.models.config import ModelConfig, NormConfig

LOW_RANKS = {
    f"{part}{i}": f"{part}_lora.lora.{theirs}"
    for part in "wavg"
    for i, theirs in enumerate(("2.bias", "0.weight", "2.weight"))
}
LINEARS = {"receptance.": "r_proj.", "key.": "k_proj.", "value.": "v_proj.", "output.": "o_proj.", "ln_x.": "g_norm."}
NAMES = named({**LOW_RANKS, **LINEARS, "": ""}, {"residual.norm.": "ffn_norm.", "mixer.": "ffn."})
MIXTURES = "rwkvag"  # the rows of `x_x`, in which older files have all mixtures


def _config(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    d_model, num_layers = config["hidden_size"], config["num_hidden_layers"]
    required(config, "hidden_act", "sqrelu", "sqrelu")
    value_dim = config.get("value_dim") or d_model
    values = value_dim if isinstance(value_dim, list) else [value_dim] * num_layers
    required({"value_dim": values}, "value_dim", [d_model] * num_layers, None)
    norm = layer_norm(checkpoint)
    num_heads = config["num_heads"] if config.get("head_dim") is None else d_model // config["head_dim"]
    mixer = RWKV7Config(
        num_heads=num_heads,
        decay_rank=checkpoint.size(_low_rank("w"), 0),
        rate_rank=checkpoint.size(_low_rank("a"), 0),
        gate_rank=checkpoint.size(_low_rank("g"), 0),
        value_rank=checkpoint.size(_low_rank("v", block=1), 0) if num_layers > 1 else 1,
        group_norm_eps=norm.eps * d_model / num_heads,
    )
    channel_mixing = RWKV7ChannelMixingConfig(d_hidden=checkpoint.size(BLOCK.format(0) + "ffn.key.weight", 0))
    return language_model(checkpoint, norm, (mixer, channel_mixing) * num_layers, embedding_norm(checkpoint))


def _low_rank(part: str, block: int = 0) -> str:
    return f"{BLOCK.format(block)}attn.{part}_lora.lora.0.weight"


def layer_norm(checkpoint: Checkpoint) -> NormConfig:
    required(checkpoint.config, "norm_bias", True, True)
    return NormConfig(kind="layer", eps=checkpoint.config.get("norm_eps", 1e-5))


def embedding_norm(checkpoint: Checkpoint) -> NormConfig | None:
    return layer_norm(checkpoint) if checkpoint.config.get("norm_first", True) else None


def _mixture(row: int, checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    older = name[: -len("x_r")] + "x_x"
    return checkpoint.read(older)[row] if older in checkpoint else checkpoint.read(name)


def _no_values(_checkpoint: Checkpoint, _name: str, wanted: Tensor) -> Tensor:
    """The first block has no values before its own to be drawn to."""
    return torch.zeros_like(wanted)


FLA_RWKV7 = Format(
    name="fla rwkv7",
    fits=of_type("rwkv7"),
    config=_config,
    names=lambda _: NAMES,
    reads={
        "backbone.layers.0.mixer.v[012]": _no_values,
        "*.mixer.[wavg][12]": transposed,
        **{f"*[02468].mixer.x_{part}": partial(_mixture, row) for row, part in enumerate(MIXTURES)},
    },
    unused=TIED,
)
