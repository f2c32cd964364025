"""The loop that defines `wkv`."""

import torch
from torch import Tensor

from ssp_kernels.stabilizer import reference as stabilizer

States = tuple[Tensor, Tensor, Tensor]  # numerator, denominator, running maximum


def forward(
    k_BLD: Tensor, v_BLD: Tensor, log_decay_BLD: Tensor, bonus_D: Tensor, states: States
) -> tuple[Tensor, States]:
    numerator, denominator, maximum = states
    states, outputs = (numerator.clone(), denominator.clone(), maximum.clone()), []
    for t in range(k_BLD.shape[1]):
        y_BD, states = step(k_BLD[:, t], v_BLD[:, t], log_decay_BLD[:, t], bonus_D, states, None)
        outputs.append(y_BD)
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v_BLD), states


def step(
    k_BD: Tensor, v_BD: Tensor, log_decay_BD: Tensor, bonus_D: Tensor, states: States, out: States | None
) -> tuple[Tensor, States]:
    y_BD = read(k_BD + bonus_D, v_BD, states)
    numerator_BD, denominator_BD, maximum_BD = states
    gates, new_maximum_BD = stabilizer.step(k_BD, log_decay_BD, maximum_BD, None)
    kept_BD, written_BD = gates[..., :2].exp().unbind(-1)
    new = (kept_BD * numerator_BD + written_BD * v_BD, kept_BD * denominator_BD + written_BD, new_maximum_BD)
    if out is None:
        return y_BD, new
    return y_BD, (out[0].copy_(new[0]), out[1].copy_(new[1]), out[2].copy_(new[2]))


def read(log_weight: Tensor, v: Tensor, before: States) -> Tensor:
    """The average of what came before and of v; 0 where there is neither."""
    numerator, denominator, maximum = before
    gates = stabilizer.relative(maximum, log_weight, torch.maximum(maximum, log_weight))
    kept, written = gates[..., :2].exp().unbind(-1)
    total = kept * denominator + written
    return (kept * numerator + written * v) / torch.where(total == 0, 1, total)
