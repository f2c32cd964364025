"""`linear_attention` in chunks: matrix products within a chunk, the state carried from chunk to chunk (Yang et al.,
2023, "Gated Linear Attention", section 4).

Only the states at chunk ends live from forward to backward; what lies between is computed again (checkpointing).
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssp_kernels import decays
from ssp_kernels.gradients import needs_grad
from ssp_kernels.linear_attention.reference import step

__all__ = ["forward", "step"]

CHUNK = 64


def forward(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay_BLHK: Tensor,
    bonus_HK: Tensor | None,
    state_BHKV: Tensor,
) -> tuple[Tensor, Tensor]:
    if v_BLHV.numel() == 0:
        return torch.zeros_like(v_BLHV), state_BHKV.clone()
    sequences = (q_BLHK, k_BLHK, v_BLHV, log_decay_BLHK)
    keep_ends_only = needs_grad(*sequences, bonus_HK, state_BHKV)
    state, outputs = state_BHKV, []
    chunks = (torch.split(tensor.transpose(1, 2), CHUNK, dim=2) for tensor in sequences)
    for q, k, v, log_decay in zip(*chunks, strict=True):
        arguments = (q, k, v, log_decay, bonus_HK, state)
        if keep_ends_only:
            y, state = checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state = _chunk(*arguments)
        outputs.append(y)
    return torch.cat(outputs, dim=2).transpose(1, 2), state


def _chunk(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, log_decay_BHTK: Tensor, bonus_HK: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    since_start = log_decay_BHTK.cumsum(-2)
    if bonus_HK is None:
        seen_BHTT = decays.decayed_scores(q_BHTK, k_BHTK, log_decay_BHTK)
    else:  # a token reads what the one before it left
        since_start = decays.later(since_start)
        of_others_BHTT = decays.later(decays.decayed_scores(decays.earlier(q_BHTK), k_BHTK, log_decay_BHTK))
        seen_BHTT = of_others_BHTT + torch.diag_embed((q_BHTK * bonus_HK[:, None] * k_BHTK).sum(-1))
    y_BHTV = seen_BHTT @ v_BHTV + (q_BHTK * since_start.exp()) @ state
    kept = log_decay_BHTK.sum(-2).exp()[..., None] * state
    kept = kept + (k_BHTK * decays.to_the_end(log_decay_BHTK).exp()).transpose(-1, -2) @ v_BHTV
    return y_BHTV, kept
