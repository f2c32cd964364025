"""T-RNN, the strongly-typed recurrent network (Balduzzi and Ghifary, 2016, "Strongly-Typed Recurrent Neural
Networks")."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssp_kernels import linear_scan
from ssp_runtime.mixers.base import Mixer
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


@dataclass(frozen=True, kw_only=True)
class StronglyTypedRNNConfig:
    kind: Literal["strongly_typed_rnn"] = "strongly_typed_rnn"


class StronglyTypedRNN(Mixer):
    """`h_t = f_t h_{t-1} + (1 - f_t) W x_t` with `f_t = sigmoid(V x_t + b)`: states are averages of features of x, and
    of no other type."""

    Config = StronglyTypedRNNConfig

    def __init__(self, d_model: int, config: StronglyTypedRNNConfig) -> None:
        super().__init__()
        del config  # it has no settings
        self.value_proj = nn.Linear(d_model, d_model, bias=False)
        self.forget_proj = nn.Linear(d_model, d_model)
        self.state_spec = {"recurrent_state": TensorSpec((d_model,), "accumulator")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        forget = self.forget_proj(x)
        decay, input_gate = torch.sigmoid(forget), torch.sigmoid(-forget)
        return run(linear_scan, input_gate * self.value_proj(x), decay, state="recurrent_state")
