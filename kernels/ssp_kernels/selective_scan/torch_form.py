"""`selective_scan` in blocks: a parallel scan within a block, the state carried from block to block."""

import torch
from torch import Tensor

from ssp_kernels.chunks import in_chunks
from ssp_kernels.selective_scan.reference import step

__all__ = ["forward", "step"]

BLOCK = 32


def forward(
    x_BLD: Tensor, dt_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor, state_BDN: Tensor
) -> tuple[Tensor, Tensor]:
    if x_BLD.shape[1] == 0:
        return torch.zeros_like(x_BLD), state_BDN.clone()
    return in_chunks(_block, [x_BLD, dt_BLD, B_BLN, C_BLN], [A_DN], state_BDN, size=BLOCK)


def _block(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A_DN: Tensor, state_BDN: Tensor) -> tuple[Tensor, Tensor]:
    decay_BTDN = torch.exp(dt[..., None] * A_DN)
    input_BTDN = (dt * x)[..., None] * B[:, :, None, :]
    total_BTDN, state_BTDN = _inclusive_scan(decay_BTDN, input_BTDN)
    state_BTDN = torch.addcmul(state_BTDN, total_BTDN, state_BDN[:, None])
    y = torch.einsum("btdn,btn->btd", state_BTDN, C)
    return y, state_BTDN[:, -1].clone()  # a view would keep the whole block alive


def _inclusive_scan(decay: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Products of decays and decayed sums of values up to each token, by doubling (Hillis and Steele, 1986).

    Decays are only ever multiplied, never divided, so that none of them may be too small.
    """
    reach, length = 1, decay.shape[1]
    while reach < length:
        value = torch.cat([value[:, :reach], torch.addcmul(value[:, reach:], decay[:, reach:], value[:, :-reach])], 1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], 1)
        reach *= 2
    return decay, value
