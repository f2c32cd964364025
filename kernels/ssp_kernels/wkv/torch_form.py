"""`wkv` as a running maximum and two linear scans relative to it; outputs read the states of the token before."""

import torch
from torch import Tensor

from ssp_kernels.linear_scan import torch_form as linear_scan
from ssp_kernels.stabilizer import torch_form as stabilizer
from ssp_kernels.wkv.reference import States, read, step

__all__ = ["forward", "step"]


def forward(
    k_BLD: Tensor, v_BLD: Tensor, log_decay_BLD: Tensor, bonus_D: Tensor, states: States
) -> tuple[Tensor, States]:
    numerator, denominator, maximum = states
    gates, last_maximum = stabilizer.forward(k_BLD, log_decay_BLD, maximum)
    kept_BLD, written_BLD = gates[..., :2].exp().unbind(-1)
    numerators_BLD, last_numerator = linear_scan.forward(written_BLD * v_BLD, kept_BLD, numerator)
    denominators_BLD, last_denominator = linear_scan.forward(written_BLD, kept_BLD, denominator)
    before = (
        _before(numerator, numerators_BLD),
        _before(denominator, denominators_BLD),
        _before(maximum, gates[..., 2]),
    )
    return read(k_BLD + bonus_D, v_BLD, before), (last_numerator, last_denominator, last_maximum)


def _before(first_BD: Tensor, states_BLD: Tensor) -> Tensor:
    """The state that each token finds."""
    return torch.cat([first_BD[:, None], states_BLD[:, :-1]], dim=1)[:, : states_BLD.shape[1]]
