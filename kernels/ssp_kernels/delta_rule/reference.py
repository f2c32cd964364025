"""The loop that defines `delta_rule`."""

import torch
from torch import Tensor


def forward(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay_BLHK: Tensor,
    a_BLHK: Tensor,
    b_BLHK: Tensor,
    state_BHKV: Tensor,
) -> tuple[Tensor, Tensor]:
    state, outputs = state_BHKV.clone(), []
    for t in range(q_BLHK.shape[1]):
        q, k, v, log_decay = q_BLHK[:, t], k_BLHK[:, t], v_BLHV[:, t], log_decay_BLHK[:, t]
        y, state = step(q, k, v, log_decay, a_BLHK[:, t], b_BLHK[:, t], state, None)
        outputs.append(y)
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v_BLHV), state


def step(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHV: Tensor,
    log_decay_BHK: Tensor,
    a_BHK: Tensor,
    b_BHK: Tensor,
    state_BHKV: Tensor,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    read_BHV = (b_BHK[..., None] * state_BHKV).sum(-2)
    written_BHKV = a_BHK[..., None] * read_BHV[..., None, :] + k_BHK[..., None] * v_BHV[..., None, :]
    new = torch.mul(state_BHKV, log_decay_BHK[..., None].exp(), out=out)
    new = torch.add(new, written_BHKV, out=out)
    return (q_BHK[..., None] * new).sum(-2), new
