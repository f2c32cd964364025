"""Products of decays between any two tokens of a chunk, for chunkwise forms.

They are exponentials of sums of logarithms that are at most 0. A sum from j to i is added up on its own, never taken as
a difference of two sums from the start: after a decay of 0 (minus infinity) such a difference would be lost.

Shape suffixes: T tokens of a chunk; K is 1 where a head has a single decay.
"""

import torch
from torch import Tensor


def between(log_decay: Tensor) -> Tensor:
    """`sum_{j < s <= i} log_decay_s` at (..., i, j, K), of (..., T, K); minus infinity for i < j."""
    length = log_decay.shape[-2]
    after = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).tril(-1)[..., None]  # s > j
    sums = torch.where(after, log_decay[..., :, None, :], 0).cumsum(-3)
    causal = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).tril()[..., None]
    return torch.where(causal, sums, -torch.inf)


def to_the_end(log_decay: Tensor) -> Tensor:
    """`sum_{s > j} log_decay_s` at (..., j, K), of (..., T, K)."""
    following = torch.cat([log_decay[..., 1:, :], torch.zeros_like(log_decay[..., :1, :])], dim=-2)
    return following.flip(-2).cumsum(-2).flip(-2)


def delayed(sums: Tensor) -> Tensor:
    """Of sums (`between`) up to each token in dimension -3, those up to the one before it; minus infinity for none."""
    return torch.cat([torch.full_like(sums[..., :1, :, :], -torch.inf), sums[..., :-1, :, :]], dim=-3)


def scores(q: Tensor, k: Tensor, log_decay: Tensor) -> Tensor:
    """`sum_n q_in k_jn exp(log_decay_ijn)` (..., T, T), of q and k (..., T, N) and decays (..., T, T, N or 1)."""
    if log_decay.shape[-1] == 1:
        return q @ k.transpose(-1, -2) * log_decay[..., 0].exp()
    return torch.einsum("...in,...jn,...ijn->...ij", q, k, log_decay.exp())
