"""The loop that defines `causal_conv1d`."""

import torch
from torch import Tensor


def forward(
    x_BLD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, lengths_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    y_BLD = torch.zeros_like(x_BLD)
    state = state_BDK
    for t in range(x_BLD.shape[1]):
        y, following = step(x_BLD[:, t], weight_DK, bias_D, state, None)
        y_BLD = y_BLD.index_copy(1, torch.tensor([t], device=x_BLD.device), y[:, None])
        if lengths_B is not None:
            following = torch.where((t < lengths_B)[:, None, None], following, state)
        state = following
    return y_BLD, state.clone()


def step(
    x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    window_BDK = torch.cat([state_BDK, x_BD[..., None]], dim=-1)
    y_BD = (window_BDK * weight_DK).sum(-1)
    if bias_D is not None:
        y_BD = y_BD + bias_D
    following = window_BDK[..., 1:]
    return y_BD, following if out is None else out.copy_(following)
