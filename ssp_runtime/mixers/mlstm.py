"""mLSTM, the LSTM with a matrix memory (Beck et al., 2024, "xLSTM: Extended Long Short-Term Memory"), as xLSTM 7B has
it (Beck et al., 2025, "xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import linear_attention, stabilizer
from ssp_runtime.mixers.base import Mixer, Positive, PositiveReal
from ssp_runtime.mixers.heads import expanded, head_dim, merged, split
from ssp_runtime.mixers.norms import GroupLayerNorm
from ssp_runtime.mixers.soft_cap import soft_capped
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class MLSTMConfig:
    """Keys have `d_model * expand_k` features over all heads, values `d_model`. `gate_soft_cap` bounds the gates before
    their nonlinearities; None, as in the paper of 2024, leaves them free."""

    kind: Literal["mlstm"] = "mlstm"
    num_heads: Positive = 4
    expand_k: PositiveReal = 0.5
    gate_soft_cap: PositiveReal | None = 15.0
    norm_eps: PositiveReal = 1e-6


class MLSTM(Mixer):
    """`C_t = f_t C_{t-1} + i_t k_t v_t^T`, `n_t = f_t n_{t-1} + i_t k_t`, `h_t = C_t^T q_t / max(|n_t^T q_t|, 1)`,
    `y_t = out_proj(sigmoid(o_t) * norm(h_t))`, with `i = exp` and `f = sigmoid` of a gate for each head (Beck et
    al., 2024, equations 19 to 27).

    `recurrent_state` is C with n for its last column, both divided by exp(m); `stabilizer_state` is m. It starts at 0,
    as in the published code.
    """

    Config = MLSTMConfig

    def __init__(self, d_model: int, config: MLSTMConfig) -> None:
        super().__init__()
        self.config = config
        d_key = expanded(d_model, config.expand_k, "expand_k")
        keys, values = head_dim(d_key, config.num_heads), head_dim(d_model, config.num_heads)
        self.q_proj = nn.Linear(d_model, d_key, bias=False)
        self.k_proj = nn.Linear(d_model, d_key, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.ogate = nn.Linear(d_model, d_model, bias=False)
        self.igate = nn.Linear(d_model, config.num_heads)
        self.fgate = nn.Linear(d_model, config.num_heads)
        self.norm = GroupLayerNorm(d_model, config.num_heads, eps=config.norm_eps)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        self.state_spec = {
            "recurrent_state": TensorSpec((config.num_heads, keys, values + 1), "accumulator"),
            "stabilizer_state": TensorSpec((config.num_heads,), "accumulator"),
        }
        self._initialize_gates()

    def _initialize_gates(self) -> None:
        """Input gates nearly shut (xLSTM 7B, section 3.2) and forget gates nearly open, whatever the input."""
        for gate in (self.igate, self.fgate):
            nn.init.zeros_(gate.weight)
        nn.init.constant_(self.igate.bias, -10.0)
        with torch.no_grad():
            self.fgate.bias.copy_(torch.linspace(3.0, 6.0, self.config.num_heads))

    def compute(self, x: Tensor, run: Run) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # exponentials and a quotient: bfloat16 is too coarse
        i, f = (soft_capped(gate(x).to(wide), self.config.gate_soft_cap) for gate in (self.igate, self.fgate))
        gates = run(stabilizer, i, F.logsigmoid(f), state="stabilizer_state")
        kept, written, maximum = gates[..., None].unbind(-2)
        q, k, v = (split(proj(x), self.config.num_heads).to(wide) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = q * q.shape[-1] ** -0.5, k * written.exp(), torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
        sums = run(linear_attention, q, k, v, kept, None, state="recurrent_state")
        h = self.norm(merged(_normalized(sums, maximum))).to(x.dtype)
        return torch.as_tensor(self.out_proj(torch.sigmoid(self.ogate(x)) * h))


def _normalized(sums: Tensor, maximum: Tensor) -> Tensor:
    """`C^T q / max(|n^T q|, 1)` of both products (..., V + 1) relative to exp(maximum)."""
    one = torch.exp(-maximum.clamp(min=-60))  # below that all is nothing, and must not be 1 / inf
    return sums[..., :-1] / (torch.maximum(sums[..., -1:].abs(), one) + 1e-6)
