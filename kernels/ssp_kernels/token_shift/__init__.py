"""A delay of one token, as RWKV mixes each token with the one before (Peng et al., 2023, "RWKV", section 3.1)."""

import torch
from torch import Tensor


def forward(x_BLD: Tensor, state_BD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The token before each one: `y_t = x_{t-1}`, where the first follows the state.

    Args:
        x_BLD: (B, L, D), L may be 0.
        state_BD: the last token of before (B, D).
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        (B, L, D), and each row's last valid token (B, D).
    """
    inputs_BLD = torch.cat([state_BD[:, None], x_BLD], dim=1)
    if lengths_B is None:
        return inputs_BLD[:, :-1], inputs_BLD[:, -1].clone()
    return inputs_BLD[:, :-1], inputs_BLD[torch.arange(len(x_BLD), device=x_BLD.device), lengths_B]


def step(x_BD: Tensor, state_BD: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    return state_BD.clone(), x_BD.clone() if out is None else out.copy_(x_BD)
