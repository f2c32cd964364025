"""`causal_conv1d` as K shifted products: (B, L, D) is never transposed, and gradients cost less than conv1d's."""

import torch
from torch import Tensor

from ssp_kernels.causal_conv1d.reference import step

__all__ = ["forward", "last_inputs", "step"]


def forward(
    x_BLD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, lengths_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    length, taps = x_BLD.shape[1], weight_DK.shape[1]
    inputs_BLD = torch.cat([state_BDK.transpose(1, 2), x_BLD], dim=1)
    y_BLD = inputs_BLD[:, :length] * weight_DK[:, 0]
    for k in range(1, taps):
        y_BLD = torch.addcmul(y_BLD, inputs_BLD[:, k : k + length], weight_DK[:, k])
    if bias_D is not None:
        y_BLD = y_BLD + bias_D
    return y_BLD, last_inputs(x_BLD, state_BDK, lengths_B)


def last_inputs(x_BLD: Tensor, state_BDK: Tensor, lengths_B: Tensor | None) -> Tensor:
    """The K - 1 inputs before each row's end, (B, D, K - 1)."""
    length, count = x_BLD.shape[1], state_BDK.shape[2]
    if lengths_B is None:
        latest_BLD = x_BLD[:, max(0, length - count) :]
        return torch.cat([state_BDK[..., length:], latest_BLD.transpose(1, 2)], dim=-1)
    inputs_BLD = torch.cat([state_BDK.transpose(1, 2), x_BLD], dim=1)
    positions_BK = lengths_B[:, None] + torch.arange(count, device=lengths_B.device)
    index = positions_BK[..., None].expand(-1, -1, inputs_BLD.shape[2])
    return inputs_BLD.gather(1, index).transpose(1, 2).contiguous()
