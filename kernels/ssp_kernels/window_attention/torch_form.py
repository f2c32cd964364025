"""`window_attention` along the band: blocks of queries attend to their own tokens and the W before them.

Within a group queries of all heads and tokens are rows of one product. In training each block is computed again:
neither scores nor masks live from forward to backward.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_kernels.gradients import needs_grad, recomputed
from ssp_kernels.window_attention.reference import positions_of_slots, write

BLOCK = 128


def forward(
    q_BLHK: Tensor,
    k_BLGK: Tensor,
    v_BLGV: Tensor,
    positions_BL: Tensor,
    since_BL: Tensor,
    ring: tuple[Tensor, Tensor],
    lengths_B: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    length, window = q_BLHK.shape[1], ring[0].shape[1]
    if q_BLHK.numel() == 0:
        return v_BLGV.new_zeros(*q_BLHK.shape[:3], v_BLGV.shape[3]), (ring[0].clone(), ring[1].clone())
    before_BW = positions_BL[:, :1] + torch.arange(-window, 0, device=positions_BL.device)
    k_BNGK, v_BNGV = (
        torch.cat([_taken(buffer, before_BW % window), new], dim=1)
        for buffer, new in zip(ring, (k_BLGK, v_BLGV), strict=True)
    )
    positions_BN = torch.cat([before_BW, positions_BL], dim=1)
    outputs = []
    for start in range(0, length, BLOCK):
        block = slice(start, start + BLOCK)
        band = slice(start + 1, start + BLOCK + window)  # the token at t is number W + t, the first it sees t + 1
        seen = (k_BNGK[:, band], v_BNGV[:, band], positions_BN[:, band])
        outputs.append(recomputed(_block, q_BLHK[:, block], positions_BL[:, block], since_BL[:, block], *seen))
    last_B = positions_BL[:, 0] - 1 + (length if lengths_B is None else lengths_B)
    numbers_BW = positions_of_slots(last_B, window) - before_BW[:, :1]
    return torch.cat(outputs, dim=1), (_taken(k_BNGK, numbers_BW), _taken(v_BNGV, numbers_BW))


def step(
    q_BHK: Tensor,
    k_BGK: Tensor,
    v_BGV: Tensor,
    position_B: Tensor,
    since_B: Tensor,
    ring: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    keys_BWGK, values_BWGV = write(ring, k_BGK, v_BGV, position_B, out)
    positions_BW = positions_of_slots(position_B, ring[0].shape[1])
    y_BTHV = _block(q_BHK[:, None], position_B[:, None], since_B[:, None], keys_BWGK, values_BWGV, positions_BW)
    return y_BTHV[:, 0], (keys_BWGK, values_BWGV)


def _taken(sequence_BNGK: Tensor, numbers_BW: Tensor) -> Tensor:
    return sequence_BNGK[torch.arange(len(numbers_BW), device=numbers_BW.device)[:, None], numbers_BW]


def _block(
    q_BTHK: Tensor, positions_BT: Tensor, since_BT: Tensor, k_BNGK: Tensor, v_BNGV: Tensor, positions_BN: Tensor
) -> Tensor:
    """Outputs (B, T, H, V) for T tokens that attend to some of N."""
    earlier_BTN = positions_BN[:, None] <= positions_BT[..., None]
    visible_BTN = earlier_BTN & (positions_BN[:, None] >= since_BT[..., None])
    q_BGRTK = torch.unflatten(q_BTHK, 2, (k_BNGK.shape[2], -1)).permute(0, 2, 3, 1, 4)
    tokens, heads = q_BTHK.shape[1], q_BGRTK.shape[2]
    mask_B1SN = visible_BTN[:, None].repeat(1, 1, heads, 1)
    y_BGSV = _attention(q_BGRTK.flatten(2, 3), k_BNGK.transpose(1, 2), v_BNGV.transpose(1, 2), mask_B1SN)
    return torch.unflatten(y_BGSV, 2, (heads, tokens)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Torch's fused one, but not for gradients: where a softmax is saturated they should be 0, and there are roundings
    times keys times values instead."""
    if needs_grad(q, k, v):
        return torch.where(mask, q @ k.transpose(-1, -2), -torch.inf).softmax(-1) @ v
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))  # or it is not the fused one
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
