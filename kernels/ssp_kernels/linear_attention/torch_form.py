"""`linear_attention` in chunks: matrix products within a chunk, the state carried from chunk to chunk (Yang et al.,
2023, "Gated Linear Attention", section 4).
"""

import torch
from torch import Tensor

from ssp_kernels import decays
from ssp_kernels.chunks import in_chunks
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
    y_BHLV, state = in_chunks(_chunk, [t.transpose(1, 2) for t in sequences], [bonus_HK], state_BHKV, size=CHUNK, dim=2)
    return y_BHLV.transpose(1, 2), state


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
