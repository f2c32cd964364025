"""How many tokens came before each one."""

import torch
from torch import Tensor


def forward(x_BLD: Tensor, state_B: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Positions (B, L) of tokens (B, L, ...), counted from the state, an int64 (B,); and the position that follows."""
    length = x_BLD.shape[1]
    positions_BL = state_B[:, None] + torch.arange(length, device=x_BLD.device)
    return positions_BL, state_B + (length if lengths_B is None else lengths_B)


def step(x_BD: Tensor, state_B: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token of `forward`: positions (B,). The new state is written to `out` if given, also if it is the state."""
    del x_BD
    return state_B.clone(), torch.add(state_B, 1, out=out)
