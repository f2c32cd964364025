"""sLSTM, the LSTM with exponential gates and a memory for each feature (Beck et al., 2024, "xLSTM: Extended Long
Short-Term Memory"), as the published code has it.

Shape suffixes: H heads, K features of a head, G the gates i, f, z, o.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels.nonlinear_loop.slstm import slstm
from ssp_runtime.mixers.base import Mixer, Positive
from ssp_runtime.mixers.heads import head_dim, merged, split
from ssp_runtime.mixers.norms import GroupLayerNorm
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class SLSTMConfig:
    """`d_conv` None leaves out the convolution before the input and forget gates."""

    kind: Literal["slstm"] = "slstm"
    num_heads: Positive = 4
    d_conv: Positive | None = 4


class SLSTM(Mixer):
    """`y_t = norm(h_t)` with `c_t = f_t c_{t-1} + i_t tanh(z_t)`, `n_t = f_t n_{t-1} + i_t`, `h_t = sigmoid(o_t) c_t /
    n_t`, where `i = exp` and `f = sigmoid` of the gates `W x_t + R h_{t-1} + b`, each head by itself (equations 8 to
    17); i and f see x convolved (figure 10).

    `recurrent_state` is c and `normalizer_state` n, both divided by exp(m); `hidden_state` is h, `stabilizer_state` m.
    """

    Config = SLSTMConfig

    def __init__(self, d_model: int, config: SLSTMConfig) -> None:
        super().__init__()
        heads, size = config.num_heads, head_dim(d_model, config.num_heads)
        memory = TensorSpec((heads, size), "accumulator")
        self.state_spec = {
            "recurrent_state": memory,
            "normalizer_state": memory,
            "hidden_state": memory,
            "stabilizer_state": TensorSpec((heads, size), "accumulator", init=-math.inf),
        }
        self.conv1d = None
        if config.d_conv is not None:
            self.conv1d = ShortConvolution(d_model, config.d_conv)
            self.state_spec |= self.conv1d.state_spec
        self.W = nn.Parameter(torch.randn(heads, size, 4, size) * (2 / (5 * d_model)) ** 0.5)
        self.R = nn.Parameter(torch.zeros(heads, size, 4, size))
        self.b = nn.Parameter(torch.zeros(heads, 4, size))
        self.norm = GroupLayerNorm(d_model, heads)
        self._spread_forget_gates()

    def _spread_forget_gates(self) -> None:
        """Features of a head remember for long to hardly at all: their biases go from 5 down to -7."""
        with torch.no_grad():
            self.b[:, 1] = 5 - 12 * torch.linspace(0, 1, self.b.shape[-1]) ** 0.3

    def compute(self, x: Tensor, run: Run) -> Tensor:
        i_f, z_o = _gates(self._convolved(x, run), self.W[:, :, :2]), _gates(x, self.W[:, :, 2:])
        wide = torch.promote_types(x.dtype, torch.float32)  # exponentials: bfloat16 is too coarse
        gates = torch.cat([i_f, z_o], dim=-2).to(wide) + self.b
        states = ("recurrent_state", "normalizer_state", "hidden_state", "stabilizer_state")
        h = run(slstm, gates, self.R, state=states)
        return torch.as_tensor(self.norm(merged(h)).to(x.dtype))

    def _convolved(self, x: Tensor, run: Run) -> Tensor:
        if self.conv1d is None:
            return x
        return F.silu(self.conv1d.compute(x, run))


def _gates(x: Tensor, weights_HKGK: Tensor) -> Tensor:
    """Gates (..., H, G, K) of features (..., D)."""
    return torch.einsum("...hk,hkgj->...hgj", split(x, len(weights_HKGK)), weights_HKGK)
