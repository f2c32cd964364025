"""The loop that defines `lti_ssm`."""

import torch
from torch import Tensor


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
    (a_re, a_im), (s_re, s_im) = Abar_DN2.unbind(-1), state_BDN2.unbind(-1)
    decayed_BDN2 = torch.stack([a_re * s_re - a_im * s_im, a_re * s_im + a_im * s_re], dim=-1)
    new = torch.add(decayed_BDN2, input_BDN2, out=out)
    (n_re, n_im), (c_re, c_im) = new.unbind(-1), C_DN2.unbind(-1)
    return 2 * (c_re * n_re - c_im * n_im).sum(-1), new
