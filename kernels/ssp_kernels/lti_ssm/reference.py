"""The loop that defines `lti_ssm`."""

import torch
from torch import Tensor

from ssp_kernels.pairs import product, twice_real_dot


def forward(
    x_BLD: Tensor, Abar_DN2: Tensor, Bbar_DN2: Tensor, C_DN2: Tensor, state_BDN2: Tensor, lengths_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    state, outputs = state_BDN2.clone(), []
    for t in range(x_BLD.shape[1]):
        y_BD, following = step(x_BLD[:, t], Abar_DN2, Bbar_DN2, C_DN2, state, None)
        outputs.append(y_BD)
        if lengths_B is not None:
            following = torch.where((t < lengths_B)[:, None, None, None], following, state)
        state = following
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(x_BLD), state


def step(
    x_BD: Tensor, Abar_DN2: Tensor, Bbar_DN2: Tensor, C_DN2: Tensor, state_BDN2: Tensor, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    input_BDN2 = x_BD[..., None, None] * Bbar_DN2
    new = torch.add(product(Abar_DN2, state_BDN2), input_BDN2, out=out)
    return twice_real_dot(C_DN2, new), new
