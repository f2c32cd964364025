"""The loop that defines `linear_scan`."""

import torch
from torch import Tensor

from ssp_kernels.pairs import product


def forward(b_BLD: Tensor, a_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]:
    state, outputs = state_BD.clone(), []
    for t in range(b_BLD.shape[1]):
        h_BD, state = step(b_BLD[:, t], a_BLD[:, t], state, None)
        outputs.append(h_BD)
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(b_BLD), state


def step(b_BD: Tensor, a_BD: Tensor, state_BD: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    h_BD = (product(a_BD, state_BD) if b_BD.ndim == 3 else a_BD * state_BD) + b_BD
    return h_BD, h_BD.clone() if out is None else out.copy_(h_BD)
