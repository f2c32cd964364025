"""The loop that defines `linear_attention`."""

import torch
from torch import Tensor


def forward(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay_BLHK: Tensor,
    bonus_HK: Tensor | None,
    state_BHKV: Tensor,
) -> tuple[Tensor, Tensor]:
    state, outputs = state_BHKV.clone(), []
    for t in range(q_BLHK.shape[1]):
        q, k, v, log_decay = (sequence[:, t] for sequence in (q_BLHK, k_BLHK, v_BLHV, log_decay_BLHK))
        y, state = step(q, k, v, log_decay, bonus_HK, state, None)
        outputs.append(y)
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v_BLHV), state


def step(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHV: Tensor,
    log_decay_BHK: Tensor,
    bonus_HK: Tensor | None,
    state_BHKV: Tensor,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    written_BHKV = k_BHK[..., None] * v_BHV[..., None, :]
    read = None if bonus_HK is None else state_BHKV + bonus_HK[..., None] * written_BHKV
    new = torch.mul(state_BHKV, log_decay_BHK[..., None].exp(), out=out)
    new = torch.add(new, written_BHKV, out=out)
    return (q_BHK[..., None] * (new if read is None else read)).sum(-2), new
