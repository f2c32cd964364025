"""The loop that defines `window_attention`."""

import torch
from torch import Tensor


def forward(
    q_BLHK: Tensor,
    k_BLGK: Tensor,
    v_BLGV: Tensor,
    positions_BL: Tensor,
    since_BL: Tensor,
    ring: tuple[Tensor, Tensor],
    lengths_B: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    ring = ring[0].clone(), ring[1].clone()
    outputs = [v_BLGV.new_zeros(len(q_BLHK), 0, q_BLHK.shape[2], v_BLGV.shape[3])]
    for t in range(q_BLHK.shape[1]):
        q, k, v, position, since = (sequence[:, t] for sequence in (q_BLHK, k_BLGK, v_BLGV, positions_BL, since_BL))
        y, following = step(q, k, v, position, since, ring, None)
        outputs.append(y[:, None])
        if lengths_B is not None:
            valid = (t < lengths_B)[:, None, None, None]
            following = torch.where(valid, following[0], ring[0]), torch.where(valid, following[1], ring[1])
        ring = following
    return torch.cat(outputs, dim=1), ring


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
    visible_BW = positions_of_slots(position_B, ring[0].shape[1]) >= since_B[:, None]
    q_BGRK = torch.unflatten(q_BHK, 1, (k_BGK.shape[1], -1))
    scores_BGRW = torch.einsum("bgrk,bwgk->bgrw", q_BGRK, keys_BWGK)
    weights_BGRW = torch.where(visible_BW[:, None, None], scores_BGRW, -torch.inf).softmax(-1)
    y_BGRV = torch.einsum("bgrw,bwgv->bgrv", weights_BGRW, values_BWGV)
    return y_BGRV.flatten(1, 2), (keys_BWGK, values_BWGV)


def write(
    ring: tuple[Tensor, Tensor],
    k_BGK: Tensor,
    v_BGV: Tensor,
    position_B: Tensor,
    out: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """The ring with the token in its slot, in `out` if given."""
    place = (torch.arange(position_B.shape[0], device=position_B.device), position_B % ring[0].shape[1])
    if out is None:
        return ring[0].index_put(place, k_BGK), ring[1].index_put(place, v_BGV)
    for buffer, target, token in zip(ring, out, (k_BGK, v_BGV), strict=True):
        if target is not buffer:
            target.copy_(buffer)
        target.index_put_(place, token)
    return out


def positions_of_slots(last_B: Tensor, window: int) -> Tensor:
    """Positions (B, W) of the tokens that a ring holds, whose last one is given; negative for slots still empty."""
    return last_B[:, None] - (last_B[:, None] - torch.arange(window, device=last_B.device)) % window
