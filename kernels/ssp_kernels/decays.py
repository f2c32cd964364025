"""Products of decays between any two tokens of a chunk, for chunkwise forms.

They are exponentials of sums of logarithms that are at most 0. A sum from j to i is added up on its own, never taken as
a difference of two sums from the start: after a decay of 0 (minus infinity) such a difference would be lost.

Shape suffixes: T tokens of a chunk; K is 1 where a head has a single decay.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def between(log_decay: Tensor) -> Tensor:
    """`sum_{j < s <= i} log_decay_s` at (..., i, j, K), of (..., T, K); minus infinity for i < j."""
    length = log_decay.shape[-2]
    after = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).tril(-1)[..., None]  # s > j
    sums = torch.where(after, log_decay[..., :, None, :], 0).cumsum(-3)
    causal = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).tril()[..., None]
    return torch.where(causal, sums, -torch.inf)


def to_the_end(log_decay: Tensor) -> Tensor:
    """`sum_{s > j} log_decay_s` at (..., j, K), of (..., T, K)."""
    return earlier(log_decay).flip(-2).cumsum(-2).flip(-2)


def later(x: Tensor) -> Tensor:
    """(..., T, N) with every token's row moved to the next token; zeros come first."""
    return F.pad(x[..., :-1, :], (0, 0, 1, 0))


def earlier(x: Tensor) -> Tensor:
    """(..., T, N) with every token's row moved to the one before; zeros come last."""
    return F.pad(x[..., 1:, :], (0, 0, 0, 1))


def decayed_scores(q: Tensor, k: Tensor, log_decay: Tensor) -> Tensor:
    """`sum_n q_in k_jn exp(sum_{j < s <= i} log_decay_sn)` at (..., i, j), 0 for i < j, of q and k (..., T, N) and of
    log_decay (..., T, N or 1). It takes T x N of memory for each of log T levels, where `between` takes T x T x N."""
    if log_decay.shape[-1] == 1:
        return q @ k.transpose(-1, -2) * between(log_decay)[..., 0].exp()
    length = q.shape[-2]
    filling = (0, 0, 0, (1 << (length - 1).bit_length()) - length)  # up to a power of two
    return _halved_scores(*(F.pad(tensor, filling) for tensor in (q, k, log_decay)))[..., :length, :length]


def _halved_scores(q: Tensor, k: Tensor, log_decay: Tensor) -> Tensor:
    """From the first half to the second one decays up to the middle, and then from there on."""
    length = q.shape[-2]
    if length == 1:
        return (q * k).sum(-1, keepdim=True)
    q, k, log_decay = (torch.unflatten(tensor, -2, (2, length // 2)) for tensor in (q, k, log_decay))
    from_middle, to_middle = log_decay[..., 1, :, :].cumsum(-2).exp(), to_the_end(log_decay[..., 0, :, :]).exp()
    across = (q[..., 1, :, :] * from_middle) @ (k[..., 0, :, :] * to_middle).transpose(-1, -2)
    first, second = _halved_scores(q, k, log_decay).unbind(-3)
    return torch.cat(
        [torch.cat([first, torch.zeros_like(across)], dim=-1), torch.cat([across, second], dim=-1)], dim=-2
    )
