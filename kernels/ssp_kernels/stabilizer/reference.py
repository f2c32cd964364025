"""The loop that defines `stabilizer`."""

import torch
from torch import Tensor


def forward(log_input_BLD: Tensor, log_decay_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]:
    state, outputs = state_BD.clone(), []
    for t in range(log_input_BLD.shape[1]):
        gates, state = step(log_input_BLD[:, t], log_decay_BLD[:, t], state, None)
        outputs.append(gates)
    return torch.stack(outputs, dim=1) if outputs else log_input_BLD.new_zeros(*log_input_BLD.shape, 3), state


def step(log_input_BD: Tensor, log_decay_BD: Tensor, state_BD: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    kept_BD = log_decay_BD + state_BD
    maximum_BD = torch.maximum(kept_BD, log_input_BD)
    return relative(kept_BD, log_input_BD, maximum_BD), maximum_BD if out is None else out.copy_(maximum_BD)


def relative(kept: Tensor, written: Tensor, maximum: Tensor) -> Tensor:
    """Both less their maximum, and that (..., 3); nothing is lost of an accumulator that is still empty."""
    empty = maximum == -torch.inf
    origin = torch.where(empty, 0, maximum)
    kept, written = torch.where(empty, 0, kept - origin), written - origin
    return torch.stack([kept, written, maximum], dim=-1)
