"""The loop that defines `dplr_ssm`."""

import torch
from torch import Tensor

from ssp_kernels.pairs import product, twice_real_dot


def forward(
    x_BLD: Tensor,
    decay_DN2: Tensor,
    U_DN2: Tensor,
    V_DN2: Tensor,
    Bbar_DN2: Tensor,
    C_DN2: Tensor,
    state_BDN2: Tensor,
    lengths_B: Tensor | None,
) -> tuple[Tensor, Tensor]:
    state, outputs = state_BDN2.clone(), []
    for t in range(x_BLD.shape[1]):
        y_BD, following = step(x_BLD[:, t], decay_DN2, U_DN2, V_DN2, Bbar_DN2, C_DN2, state, None)
        outputs.append(y_BD)
        if lengths_B is not None:
            following = torch.where((t < lengths_B)[:, None, None, None], following, state)
        state = following
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(x_BLD), state


def step(
    x_BD: Tensor,
    decay_DN2: Tensor,
    U_DN2: Tensor,
    V_DN2: Tensor,
    Bbar_DN2: Tensor,
    C_DN2: Tensor,
    state_BDN2: Tensor,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    kept_BDN2 = transition(state_BDN2, decay_DN2, U_DN2, V_DN2)
    new = torch.add(kept_BDN2, x_BD[..., None, None] * Bbar_DN2, out=out)
    return twice_real_dot(C_DN2, new), new


def transition(state_BDN2: Tensor, decay_DN2: Tensor, U_DN2: Tensor, V_DN2: Tensor) -> Tensor:
    """`Abar s`."""
    return product(decay_DN2, state_BDN2) - twice_real_dot(V_DN2, state_BDN2)[..., None, None] * U_DN2
