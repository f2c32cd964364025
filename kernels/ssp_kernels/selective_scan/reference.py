"""The loop that defines `selective_scan`."""

import torch
from torch import Tensor


def forward(
    x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, state_BDN: Tensor
) -> tuple[Tensor, Tensor]:
    state, outputs = state_BDN.clone(), []
    for t in range(x_BLD.shape[1]):
        y_BD, state = step(x_BLD[:, t], dt_BLD[:, t], A_DN, B_BLN[:, t], C_BLN[:, t], state, None)
        outputs.append(y_BD)
    return torch.stack(outputs, dim=1) if outputs else x_BLD.new_zeros(x_BLD.shape), state


def step(
    x_BD: Tensor, dt_BD: Tensor, A_DN: Tensor, B_BN: Tensor, C_BN: Tensor, state_BDN: Tensor, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    decay_BDN = torch.exp(dt_BD[..., None] * A_DN)
    input_BDN = (dt_BD * x_BD)[..., None] * B_BN[:, None, :]
    state = torch.mul(state_BDN, decay_BDN, out=out)
    state = torch.add(state, input_BDN, out=out)
    return (state * C_BN[:, None, :]).sum(-1), state
