"""QRNN, the quasi-recurrent network with fo-pooling and a window of two tokens (Bradbury et al., 2016,
"Quasi-Recurrent Neural Networks")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_kernels import linear_scan, token_shift
from ssp_runtime.mixers.base import Mixer
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class QRNNConfig:
    kind: Literal["qrnn"] = "qrnn"


class QRNN(Mixer):
    """`c_t = f_t c_{t-1} + (1 - f_t) z_t`, `h_t = o_t c_t`, where z = tanh, f = sigmoid, o = sigmoid of a convolution
    over x_t and x_{t-1}."""

    Config = QRNNConfig

    def __init__(self, d_model: int, config: QRNNConfig) -> None:
        super().__init__()
        del config  # it has no settings
        self.in_proj = nn.Linear(2 * d_model, 3 * d_model)
        self.state_spec = {
            "shift_state": TensorSpec((d_model,), "activation"),
            "recurrent_state": TensorSpec((d_model,), "accumulator"),
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        before = run(token_shift, x, state="shift_state")
        value, forget, output = self.in_proj(torch.cat([x, before], dim=-1)).chunk(3, dim=-1)
        decay, input_gate = torch.sigmoid(forget), torch.sigmoid(-forget)
        c = run(linear_scan, input_gate * torch.tanh(value), decay, state="recurrent_state")
        return torch.sigmoid(output) * c
