"""The tensors that flash-linear-attention's models have, by its names, and how large they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Settings = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
HIDDEN = 20  # of MLPs
RANK = 3


def random_weights(c: Settings) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: _random(shape, generator) for name, shape in shapes(c).items()}


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    x = torch.randn(shape, generator=generator)
    return 1 + 0.3 * x if len(shape) == 1 else x * max(shape[-1] ** -0.5, 0.3)


def shapes(c: Settings) -> Shapes:
    d_model, vocab_size, of_rwkv = c["hidden_size"], c["vocab_size"], c["model_type"].startswith("rwkv")
    found = {"model.embeddings.weight": (vocab_size, d_model), **_norm("model.norm", d_model, of_rwkv)}
    if not c.get("tie_word_embeddings"):
        found["lm_head.weight"] = (vocab_size, d_model)
    if of_rwkv and c.get("norm_first", True):
        found |= _norm("model.layers.0.pre_norm", d_model, of_rwkv)
    if c["model_type"].startswith("hgrn") and c.get("use_lower_bound", True):
        found["model.lower_bounds"] = (c["num_hidden_layers"], d_model)
    for i in range(c["num_hidden_layers"]):
        block = {f"attn.{name}": shape for name, shape in ATTENTION[c["model_type"]](c).items()}
        if not i:
            block = {name: shape for name, shape in block.items() if "v_lora" not in name}
        block |= _norm("attn_norm", d_model, of_rwkv)
        block |= CHANNELS[c["model_type"]](d_model) if of_rwkv else _mlp(d_model)
        found |= {f"model.layers.{i}.{name}": shape for name, shape in block.items()}
    return found


def _norm(name: str, size: int, biased: bool) -> Shapes:
    return {f"{name}.{part}": (size,) for part in (("weight", "bias") if biased else ("weight",))}


def _mlp(d_model: int) -> Shapes:
    up: Shapes = {f"mlp.{name}_proj.weight": (HIDDEN, d_model) for name in ("gate", "up")}
    return {**up, "mlp.down_proj.weight": (d_model, HIDDEN), "mlp_norm.weight": (d_model,)}


def _rwkv6_channels(d_model: int) -> Shapes:
    return {
        **_norm("ffn_norm", d_model, biased=True),
        **{f"ffn.{part}.mu": (d_model,) for part in ("key", "receptance")},
        "ffn.key.linear.weight": (HIDDEN, d_model),
        "ffn.receptance.linear.weight": (d_model, d_model),
        "ffn.value.weight": (d_model, HIDDEN),
    }


def _rwkv7_channels(d_model: int) -> Shapes:
    return {
        **_norm("ffn_norm", d_model, biased=True),
        "ffn.x_k": (d_model,),
        "ffn.key.weight": (HIDDEN, d_model),
        "ffn.value.weight": (d_model, HIDDEN),
    }


def _sizes(c: Settings) -> tuple[int, int, int]:
    """Of the model, and of keys and values over all heads."""
    d_model = c["hidden_size"]
    if "head_dim" in c:
        d_key = c["num_heads"] * c["head_dim"]
        return d_model, d_key, int(d_key * c.get("expand_v", 2.0))
    return d_model, int(d_model * c.get("expand_k", 1.0)), int(d_model * c.get("expand_v", 1.0))


def _qkv(c: Settings) -> Shapes:
    d_model, d_key, d_value = _sizes(c)
    copies = c["num_heads"] // (c.get("num_kv_heads") or c["num_heads"])
    rows = {"q": d_key, "k": d_key // copies, "v": d_value // copies}
    convolved = c["use_short_conv"] if "use_short_conv" in c else "delta" in c["model_type"]
    return {
        **{f"{part}_proj.weight": (size, d_model) for part, size in rows.items()},
        **{f"{part}_conv1d.weight": (size, 1, c["conv_size"]) for part, size in rows.items() if convolved},
        "o_proj.weight": (d_model, d_value),
    }


def _gated(c: Settings, fused: str, plain: str, gate: bool) -> Shapes:
    d_model, _, d_value = _sizes(c)
    norm = {f"{fused if gate and c.get('fuse_norm', True) else plain}.weight": (d_value // c["num_heads"],)}
    return {**norm, "g_proj.weight": (d_value, d_model)} if gate else {**norm}


def _gla(c: Settings) -> Shapes:
    keys = _qkv(c)["k_proj.weight"][0]
    gate = {"gk_proj.0.weight": (RANK, c["hidden_size"]), "gk_proj.1.weight": (keys, RANK), "gk_proj.1.bias": (keys,)}
    return {**_retnet(c), **gate}


def _retnet(c: Settings) -> Shapes:
    return {**_qkv(c), **_gated(c, "g_norm_swish_gate", "g_norm", c.get("use_output_gate", True))}


def _hgrn(c: Settings) -> Shapes:
    d_model, d_inner = c["hidden_size"], c["hidden_size"] * c.get("expand_ratio", 1)
    projections: Shapes = {f"{part}_proj.weight": (d_inner, d_model) for part in "ifg"}
    return {**projections, "g_norm.weight": (d_inner,), "o_proj.weight": (d_model, d_inner)}


def _hgrn2(c: Settings) -> Shapes:
    d_model = c["hidden_size"]
    return {**{f"{part}_proj.weight": (d_model, d_model) for part in "qfio"}, "g_norm.weight": (d_model,)}


def _delta_net(c: Settings) -> Shapes:
    beta = {"b_proj.weight": (c["num_heads"], c["hidden_size"])}
    return {**_qkv(c), **beta, **_gated(c, "o_norm", "o_norm", c.get("use_gate", False))}


def _gated_deltanet(c: Settings) -> Shapes:
    num_heads = c["num_heads"]
    decay: Shapes = {"a_proj.weight": (num_heads, c["hidden_size"]), "A_log": (num_heads,), "dt_bias": (num_heads,)}
    return {**_delta_net({"use_gate": True, **c}), **decay}


def _linear_attention(c: Settings) -> Shapes:
    _, d_key, d_value = _sizes(c)
    keys, found = d_key // c["num_heads"], {**_qkv(c), "norm.weight": (d_value // c["num_heads"],)}
    if c["feature_map"] == "elementwise_product":
        for layer in (f"feature_map_{part}.layer{i}" for part in "qk" for i in (1, 2)):
            found |= {f"{layer}.weight": (keys, keys), f"{layer}.bias": (keys,)}
    return found


def _rwkv6(c: Settings) -> Shapes:
    d_model, d_key, d_value = _sizes(c)
    return {
        "x_proj.0.mu": (d_model,),
        "x_proj.0.linear.weight": (5 * RANK, d_model),
        "x_proj.2.weight": (d_model, 5 * RANK),
        "x_bias": (5, d_model),
        **{f"{part}_proj.linear.weight": (d_key, d_model) for part in "rk"},
        **{f"{part}_proj.linear.weight": (d_value, d_model) for part in "vg"},
        "w_proj.linear.lora.0.weight": (RANK, d_model),
        "w_proj.linear.lora.2.weight": (d_key, RANK),
        "w_proj.linear.lora.2.bias": (d_key,),
        "bonus": (c["num_heads"], d_key // c["num_heads"]),
        **_norm("g_norm", d_value, biased=True),
        "o_proj.weight": (d_model, d_value),
    }


def _rwkv7(c: Settings) -> Shapes:
    d_model = c["hidden_size"]
    found: Shapes = {f"x_{part}": (1, 1, d_model) for part in "rwkvag"}
    for rank, part in enumerate("wavg", start=2):
        lora = f"{part}_lora.lora"
        found |= {
            f"{lora}.0.weight": (rank, d_model),
            f"{lora}.2.weight": (d_model, rank),
            f"{lora}.2.bias": (d_model,),
        }
    del found["g_lora.lora.2.bias"]
    found |= {f"{part}_proj.weight": (d_model, d_model) for part in "rkvo"}
    found |= {"k_k": (d_model,), "k_a": (d_model,), "r_k": (d_model // c["head_dim"], c["head_dim"])}
    return {**found, **_norm("g_norm", d_model, biased=True)}


ATTENTION: dict[str, Callable[[Settings], Shapes]] = {
    "gla": _gla,
    "retnet": _retnet,
    "hgrn": _hgrn,
    "hgrn2": _hgrn2,
    "rwkv6": _rwkv6,
    "rwkv7": _rwkv7,
    "delta_net": _delta_net,
    "gated_deltanet": _gated_deltanet,
    "linear_attn": _linear_attention,
}
CHANNELS: dict[str, Callable[[int], Shapes]] = {"rwkv6": _rwkv6_channels, "rwkv7": _rwkv7_channels}
