"""What flash-linear-attention's models compute, token by token from the equations of the papers, on tensors under its
names. Once, outside of here, these loops were compared with that library itself: they are at most 2e-5 apart."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Settings = dict[str, Any]
Weights = dict[str, Tensor]


def logits(c: Settings, w: Weights, ids_BL: Tensor) -> Tensor:
    """(B, L, V)."""
    of_rwkv = c["model_type"].startswith("rwkv")
    x, beside = w["model.embeddings.weight"][ids_BL], dict[str, Tensor]()
    if of_rwkv and c.get("norm_first", True):
        x = _norm(c, w, "model.layers.0.pre_norm", x)
    for i in range(c["num_hidden_layers"]):
        of_block = {name.removeprefix(f"model.layers.{i}."): tensor for name, tensor in w.items()}
        attn = {name.removeprefix("attn."): tensor for name, tensor in of_block.items()}
        y = _norm(c, of_block, "attn_norm", x)
        x = x + MIXERS[c["model_type"]](c, attn | {"lower_bounds": _bounds(w, i)}, y, beside)
        y = _norm(c, of_block, "ffn_norm" if of_rwkv else "mlp_norm", x)
        x = x + (_channel_mixing if of_rwkv else _mlp)(of_block, y)
    return _norm(c, w, "model.norm", x) @ w.get("lm_head.weight", w["model.embeddings.weight"]).T


def _bounds(w: Weights, layer: int) -> Tensor:
    """HGRN's, equation 5 of its paper; 0 without."""
    if "model.lower_bounds" not in w or not layer:
        return torch.tensor(0.0)
    return (w["model.lower_bounds"].softmax(0).cumsum(0) - w["model.lower_bounds"].softmax(0)[0])[layer]


def _norm(c: Settings, w: Weights, name: str, x: Tensor) -> Tensor:
    if f"{name}.bias" in w:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], c["norm_eps"])
    return _rms(x, w[f"{name}.weight"], c["norm_eps"])


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _mlp(w: Weights, x: Tensor) -> Tensor:
    return (F.silu(x @ w["mlp.gate_proj.weight"].T) * (x @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T


def _channel_mixing(w: Weights, x: Tensor) -> Tensor:
    delta = _before(x) - x
    if "ffn.x_k" in w:
        return torch.relu((x + delta * w["ffn.x_k"]) @ w["ffn.key.weight"].T).square() @ w["ffn.value.weight"].T
    k, r = ((x + delta * w[f"ffn.{part}.mu"]) @ w[f"ffn.{part}.linear.weight"].T for part in ("key", "receptance"))
    return torch.sigmoid(r) * (torch.relu(k).square() @ w["ffn.value.weight"].T)


def _before(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


def _split(x: Tensor, num_heads: int) -> Tensor:
    return x.reshape(*x.shape[:-1], num_heads, -1)


def _heads(x: Tensor, num_heads: int, copies: int = 1) -> Tensor:
    return _split(x, num_heads // copies).repeat_interleave(copies, -2)


def _convolved(w: Weights, name: str, x: Tensor) -> Tensor:
    """Without a bias, and with SiLU, if there is a convolution of that name."""
    if f"{name}.weight" not in w:
        return x
    kernel = w[f"{name}.weight"][:, 0]
    padded = F.pad(x, (0, 0, kernel.shape[1] - 1, 0))
    return F.silu(sum((padded[:, j : j + x.shape[1]] * kernel[:, j] for j in range(kernel.shape[1])), torch.zeros(())))


def _fold(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, replace: Callable[[Tensor, int], Tensor] | None = None
) -> Tensor:
    """`S_t = replace(diag(decay_t) S_{t-1}) + k_t v_t^T`, `y_t = S_t^T q_t` for (B, L, H, K or V)."""
    S, outputs = torch.zeros(*k[:, 0].shape, v.shape[-1]), []
    for t in range(q.shape[1]):
        S = decay[:, t, ..., None] * S
        S = (S if replace is None else replace(S, t)) + k[:, t, ..., None] * v[:, t, :, None, :]
        outputs.append(torch.einsum("bhkv,bhk->bhv", S, q[:, t]))
    return torch.stack(outputs, 1)


def _gated(c: Settings, w: Weights, x: Tensor, y: Tensor, norm: str = "g_norm") -> Tensor:
    """Heads' outputs through their norm, a gate if there is one, and the projection."""
    y = _rms(y, w.get(f"{norm}.weight", w.get("g_norm_swish_gate.weight", torch.zeros(()))), c["norm_eps"]).flatten(-2)
    gate = F.silu(x @ w["g_proj.weight"].T) if "g_proj.weight" in w else 1
    return (y * gate) @ w["o_proj.weight"].T


def _qkv(c: Settings, w: Weights, x: Tensor) -> Iterator[Tensor]:
    copies = c["num_heads"] // (c.get("num_kv_heads") or c["num_heads"])
    for part in "qkv":
        u = _convolved(w, f"{part}_conv1d", x @ w[f"{part}_proj.weight"].T)
        yield _heads(u, c["num_heads"], 1 if part == "q" else copies)


def _gla(c: Settings, w: Weights, x: Tensor, _: object) -> Tensor:
    q, k, v = _qkv(c, w, x)
    gate = x @ w["gk_proj.0.weight"].T @ w["gk_proj.1.weight"].T + w["gk_proj.1.bias"]
    copies = c["num_heads"] // (c.get("num_kv_heads") or c["num_heads"])
    decay = torch.sigmoid(_heads(gate, c["num_heads"], copies)) ** (1 / 16)
    return _gated(c, w, x, _fold(q * q.shape[-1] ** -0.5, k, v, decay))


def _retnet(c: Settings, w: Weights, x: Tensor, _: object) -> Tensor:
    q, k, v = _qkv(c, w, x)
    half = k.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None, None] * 10_000 ** (-torch.arange(half) / half)
    q, k = (
        torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)
        for a, b in (t.chunk(2, -1) for t in (q, k))
    )
    decay = (1 - 2.0 ** (-5 - torch.arange(c["num_heads"])))[:, None].expand_as(k)
    return _gated(c, w, x, _fold(q * q.shape[-1] ** -0.5, k, v, decay))


def _hgrn(c: Settings, w: Weights, x: Tensor, _: object) -> Tensor:
    i, f = x @ w["i_proj.weight"].T, x @ w["f_proj.weight"].T
    forget = w["lower_bounds"] + (1 - w["lower_bounds"]) * torch.sigmoid(f)
    state, outputs = torch.zeros_like(i[:, 0]), []
    for t in range(x.shape[1]):
        state = forget[:, t] * state + (1 - forget[:, t]) * F.silu(i[:, t])
        outputs.append(state)
    return _gated(c, w, x, torch.stack(outputs, 1).unsqueeze(-2))


def _hgrn2(c: Settings, w: Weights, x: Tensor, _: object) -> Tensor:
    q, f, i = (x @ w[f"{part}_proj.weight"].T for part in "qfi")
    forget = w["lower_bounds"] + (1 - w["lower_bounds"]) * torch.sigmoid(f)
    num_heads = c["hidden_size"] // c["expand_ratio"]
    q, forget, i = (_heads(t, num_heads) for t in (F.silu(q), forget, i))
    y = _fold(q * q.shape[-1] ** -0.5, 1 - forget, i, forget)
    return _gated({**c, "norm_eps": 1e-5}, w, x, y.flatten(-2).unsqueeze(-2))


def _delta_net(c: Settings, w: Weights, x: Tensor, _: object, decay: Tensor | None = None) -> Tensor:
    q, k, v = (t if "q_conv1d.weight" in w else F.silu(t) for t in _qkv(c, w, x))
    q, k = (t / torch.sqrt(t.square().sum(-1, keepdim=True) + 1e-6) for t in (q, k))
    beta = (1 + c.get("allow_neg_eigval", False)) * torch.sigmoid(x @ w["b_proj.weight"].T)[..., None]

    def replace(S: Tensor, t: int) -> Tensor:
        held = torch.einsum("bhkv,bhk->bhv", S, k[:, t])
        return torch.sub(S, (beta * k)[:, t, ..., None] * held[..., None, :])

    y = _fold(q * q.shape[-1] ** -0.5, beta * k, v, torch.ones_like(k) if decay is None else decay, replace)
    return _gated(c, w, x, y, "o_norm")


def _gated_deltanet(c: Settings, w: Weights, x: Tensor, beside: object) -> Tensor:
    log_decay = -torch.exp(w["A_log"]) * F.softplus(x @ w["a_proj.weight"].T + w["dt_bias"])
    return _delta_net(c, w, x, beside, log_decay.exp()[..., None].expand(*log_decay.shape, c["head_dim"]))


def _linear_attention(c: Settings, w: Weights, x: Tensor, _: object) -> Tensor:
    q, k, v = _qkv(c, w, x)
    q, k = (_feature_map(c, w, f"feature_map_{name}", t) for name, t in (("q", q), ("k", k)))
    y = _fold(q * q.shape[-1] ** -0.5, k, v, torch.ones_like(k))
    if c.get("norm_feature_map"):
        y = y / (q * q.shape[-1] ** -0.5 * k.cumsum(1)).sum(-1, keepdim=True)
    return _gated(c, w, x, y, "norm")


def _feature_map(c: Settings, w: Weights, name: str, x: Tensor) -> Tensor:
    if c["feature_map"] == "elementwise_product":
        first, second = (x @ w[f"{name}.layer{i}.weight"].T + w[f"{name}.layer{i}.bias"] for i in (1, 2))
        return first * second
    return {"elu": F.elu(x) + 1, "relu": torch.relu(x), "identity": x}[c["feature_map"]]


def _rwkv6(c: Settings, w: Weights, x: Tensor, _: object) -> Tensor:
    delta = _before(x) - x
    hidden = torch.tanh((x + delta * w["x_proj.0.mu"]) @ w["x_proj.0.linear.weight"].T)
    low_rank = zip(hidden.chunk(5, -1), w["x_proj.2.weight"].chunk(5, -1), w["x_bias"], strict=True)
    r, w_, k, v, g = (x + delta * (h @ second.T + bias) for h, second, bias in low_rank)
    r, k, v, g = (t @ w[f"{name}_proj.linear.weight"].T for name, t in zip("rkvg", (r, k, v, g), strict=True))
    lora = "w_proj.linear.lora."
    decay = torch.exp(-torch.exp(torch.tanh(w_ @ w[f"{lora}0.weight"].T) @ w[f"{lora}2.weight"].T + w[f"{lora}2.bias"]))
    r, k, v, decay = (_heads(t, c["num_heads"]) for t in (r, k, v, decay))
    y = F.pad(_fold(r[:, 1:], k[:, :-1], v[:, :-1], decay[:, :-1]), (0, 0, 0, 0, 1, 0))  # before the token itself
    y = y + (r * w["bonus"] * k).sum(-1, keepdim=True) * v
    return (_group_norm(w, y, c["norm_eps"]) * F.silu(g)) @ w["o_proj.weight"].T


def _group_norm(w: Weights, y: Tensor, eps: float) -> Tensor:
    return F.layer_norm(y, y.shape[-1:], eps=eps).flatten(-2) * w["g_norm.weight"] + w["g_norm.bias"]


def _rwkv7(c: Settings, w: Weights, x: Tensor, beside: dict[str, Tensor]) -> Tensor:
    delta, num_heads = _before(x) - x, c["hidden_size"] // c["head_dim"]
    r, w_, k, v, a, g = (x + delta * w[f"x_{part}"] for part in "rwkvag")
    value_input = v
    r, k, v = (t @ w[f"{name}_proj.weight"].T for name, t in zip("rkv", (r, k, v), strict=True))
    decay = torch.exp(-math.exp(-0.5) * torch.sigmoid(_lora(w, "w", w_, torch.tanh)))
    if "v_lora.lora.0.weight" in w:
        v = v + (beside["first"] - v) * torch.sigmoid(_lora(w, "v", value_input))
    beside.setdefault("first", v)
    a, g = torch.sigmoid(_lora(w, "a", a)), _lora(w, "g", g, torch.sigmoid)
    removed = F.normalize(_heads(k * w["k_k"], num_heads), dim=-1)
    k = k * (1 + (a - 1) * w["k_a"])
    r, k, v, decay, a = (_heads(t, num_heads) for t in (r, k, v, decay, a))
    S, outputs = torch.zeros(*k[:, 0].shape, v.shape[-1]), []
    for t in range(x.shape[1]):
        held = torch.einsum("bhkv,bhk->bhv", S, removed[:, t])
        S = decay[:, t, ..., None] * S - (a * removed)[:, t, ..., None] * held[..., None, :]
        S = S + k[:, t, ..., None] * v[:, t, :, None, :]
        outputs.append(torch.einsum("bhkv,bhk->bhv", S, r[:, t]))
    y = _group_norm(w, torch.stack(outputs, 1), c["head_dim"] * c["norm_eps"])
    y = y + ((r * w["r_k"] * k).sum(-1, keepdim=True) * v).flatten(-2)
    return (y * g) @ w["o_proj.weight"].T


def _lora(w: Weights, name: str, x: Tensor, between: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    y = between(x @ w[f"{name}_lora.lora.0.weight"].T) @ w[f"{name}_lora.lora.2.weight"].T
    return y + w.get(f"{name}_lora.lora.2.bias", torch.zeros(()))


MIXERS: dict[str, Callable[[Settings, Weights, Tensor, dict[str, Tensor]], Tensor]] = {
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
