"""Attention to a window of tokens, with rotary positions and shared keys and values (De et al., 2024, "Griffin: Mixing
Gated Linear Recurrences with Local Attention for Efficient Language Models", section 2.3)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssp_kernels import position, window_attention
from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.heads import head_dim, merged, split
from ssp_runtime.mixers.rotary import rotate
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class WindowAttentionConfig:
    """A token sees the last `window` tokens, itself among them (the authors' own code counts those before it: one
    less); if `chunked`, only those of its own block of `window` tokens. `num_kv_heads` are shared evenly by
    `num_heads`. Rotary positions turn the first `partial_rotary_factor` of a head's features.
    """

    kind: Literal["window_attention"] = "window_attention"
    num_heads: Positive = 4
    num_kv_heads: Positive = 1
    window: Positive = 1024
    chunked: bool = False
    partial_rotary_factor: Annotated[float, Field(ge=0, le=1)] = 0.5
    rotary_base: PositiveReal = 10_000.0
    bias: bool = False

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"tokens see at least themselves; choose a window of 1 or more, not {self.window}")
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} heads of keys and values; choose a num_heads "
                "that is a multiple of num_kv_heads"
            )


class WindowAttention(Mixer):
    """`y_t = out_proj(sum_s softmax_s(q_t . k_s / sqrt(K)) v_s)` over t - window < s <= t."""

    Config = WindowAttentionConfig

    def __init__(self, d_model: int, config: WindowAttentionConfig) -> None:
        super().__init__()
        self.config = config
        size = head_dim(d_model, config.num_heads)
        self.rotary_dim = _rotary_dim(size, config.partial_rotary_factor)
        self.q_proj = nn.Linear(d_model, d_model, bias=config.bias)
        self.k_proj = nn.Linear(d_model, config.num_kv_heads * size, bias=config.bias)
        self.v_proj = nn.Linear(d_model, config.num_kv_heads * size, bias=config.bias)
        self.out_proj = nn.Linear(d_model, d_model)
        ring = TensorSpec((config.window, config.num_kv_heads, size), "activation")
        self.state_spec = {"key_state": ring, "value_state": ring, "position": TensorSpec((), "index")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        config, positions = self.config, run(position, x, state="position")
        q = self._rotated(split(self.q_proj(x), config.num_heads), positions)
        k = self._rotated(split(self.k_proj(x), config.num_kv_heads), positions)
        v = split(self.v_proj(x), config.num_kv_heads)
        since = positions // config.window * config.window if config.chunked else None
        q = q * q.shape[-1] ** -0.5
        y = run(window_attention, q, k, v, positions, since, state=("key_state", "value_state"))
        return torch.as_tensor(self.out_proj(merged(y)))

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        turning, staying = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        return torch.cat([rotate(turning, positions, base=self.config.rotary_base), staying], dim=-1)


def _rotary_dim(size: int, factor: float) -> int:
    features = int(size * factor)
    if features % 2:
        raise ValueError(
            f"rotary positions turn pairs of features; {factor:g} of {size} per head are {features}: change "
            "partial_rotary_factor or num_heads to make that even"
        )
    return features
