"""`stabilizer` as a scan in which maximum adds and addition multiplies; its gradient follows the winners back."""

from typing import Any, cast

import torch
from torch import Tensor

from ssp_kernels.blocked_scan import blocked_scan
from ssp_kernels.linear_scan import torch_form as linear_scan
from ssp_kernels.stabilizer.reference import relative, step

__all__ = ["forward", "step"]


def forward(log_input_BLD: Tensor, log_decay_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]:
    if log_input_BLD.numel() == 0:
        return log_input_BLD.new_zeros(*log_input_BLD.shape, 3), state_BD.clone()
    maximum_BLD = cast(Tensor, _RunningMaximum.apply(log_input_BLD, log_decay_BLD, state_BD))  # type: ignore[no-untyped-call]  # torch's
    kept_BLD = log_decay_BLD + torch.cat([state_BD[:, None], maximum_BLD[:, :-1]], dim=1)
    return relative(kept_BLD, log_input_BLD, maximum_BLD), maximum_BLD[:, -1].clone()


class _RunningMaximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_input: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
        maximum = blocked_scan(log_input, log_decay, state, plus=torch.maximum, times=torch.add)
        before = torch.cat([state[:, None], maximum[:, :-1]], dim=1)
        kept = log_decay + before
        # As torch.maximum has it, a tie shares the gradient.
        ctx.save_for_backward((kept > log_input).to(maximum) + (kept == log_input).to(maximum) / 2)
        return maximum

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (kept_wins,) = ctx.saved_tensors
        after = torch.cat([kept_wins[:, 1:], torch.zeros_like(kept_wins[:, :1])], dim=1)
        backwards, _ = linear_scan.forward(grads[0].flip(1), after.flip(1), torch.zeros_like(kept_wins[:, 0]))
        g = backwards.flip(1)
        return g * (1 - kept_wins), g * kept_wins, g[:, 0] * kept_wins[:, 0]
