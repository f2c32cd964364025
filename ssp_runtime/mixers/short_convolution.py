"""The short causal convolution that many blocks have before their recurrence."""

from torch import Tensor, nn

from ssp_kernels import causal_conv1d
from ssp_runtime.mixers.base import Mixer
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


class ShortConvolution(Mixer):
    """Each feature's last `d_conv` inputs, weighted. Parameters are named, shaped and initialized as nn.Conv1d's."""

    def __init__(self, width: int, d_conv: int, *, bias: bool = True) -> None:
        super().__init__()
        start = nn.Conv1d(width, width, d_conv, groups=width, bias=bias)
        self.weight, self.bias = start.weight, start.bias
        self.state_spec = {"conv_state": TensorSpec((width, d_conv - 1), "activation")}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return run(causal_conv1d, x, self.weight[:, 0], self.bias, state="conv_state")
