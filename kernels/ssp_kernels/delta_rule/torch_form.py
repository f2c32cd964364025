"""`delta_rule` in chunks: what the tokens of a chunk read of the state before them solves a triangular system, the rest
is matrix products (Yang et al., 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
section 3).
"""

import torch
from torch import Tensor

from ssp_kernels import decays
from ssp_kernels.chunks import in_chunks
from ssp_kernels.delta_rule.reference import step

__all__ = ["forward", "step"]

CHUNK = 64


def forward(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay_BLHK: Tensor,
    a_BLHK: Tensor,
    b_BLHK: Tensor,
    state_BHKV: Tensor,
) -> tuple[Tensor, Tensor]:
    if v_BLHV.numel() == 0:
        return torch.zeros_like(v_BLHV), state_BHKV.clone()
    sequences = (q_BLHK, k_BLHK, v_BLHV, log_decay_BLHK, a_BLHK, b_BLHK)
    y_BHLV, state = in_chunks(_chunk, [t.transpose(1, 2) for t in sequences], [], state_BHKV, size=CHUNK, dim=2)
    return y_BHLV.transpose(1, 2), state


def _chunk(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTV: Tensor,
    log_decay_BHTK: Tensor,
    a_BHTK: Tensor,
    b_BHTK: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """With `u_t = S_{t-1}^T b_t` each token writes `a_t u_t^T + k_t v_t^T`, and u depends on the writes before it.

    A state is read by q of its own token and by b of the next.
    """
    since_start = log_decay_BHTK.cumsum(-2)
    b_reads_v, b_reads_u, q_reads_v, q_reads_u = _scores(q_BHTK, decays.earlier(b_BHTK), k_BHTK, a_BHTK, log_decay_BHTK)
    of_others_BHTV = (b_BHTK * decays.later(since_start).exp()) @ state + decays.later(b_reads_v) @ v_BHTV
    u_BHTV = torch.linalg.solve_triangular(-decays.later(b_reads_u), of_others_BHTV, upper=False, unitriangular=True)
    y_BHTV = (q_BHTK * since_start.exp()) @ state + q_reads_v @ v_BHTV + q_reads_u @ u_BHTV
    to_the_end = decays.to_the_end(log_decay_BHTK).exp()
    kept = log_decay_BHTK.sum(-2).exp()[..., None] * state
    kept = kept + (k_BHTK * to_the_end).transpose(-1, -2) @ v_BHTV + (a_BHTK * to_the_end).transpose(-1, -2) @ u_BHTV
    return y_BHTV, kept


def _scores(q: Tensor, b: Tensor, k: Tensor, a: Tensor, log_decay: Tensor) -> tuple[Tensor, ...]:
    """Of b and of q against k and against a, in this order, (B, H, T, T) each."""
    reads, writes = torch.stack([b, q], dim=2)[:, :, :, None], torch.stack([k, a], dim=2)[:, :, None]
    return decays.decayed_scores(reads, writes, log_decay[:, :, None, None]).flatten(2, 3).unbind(2)
