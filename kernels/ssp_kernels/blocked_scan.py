"""First-order recurrences in blocks of about sqrt(L) tokens: side by side first, then told what came before them."""

import math
from collections.abc import Callable

from torch import Tensor

Combine = Callable[[Tensor, Tensor], Tensor]


def blocked_scan(b: Tensor, a: Tensor, state: Tensor, plus: Combine, times: Combine) -> Tensor:
    """`h_t = plus(times(a_t, h_{t-1}), b_t)` (B, L, ...), L at least 1, of b and a (B, L, ...) and a state (B, ...).

    `times` is associative and distributes over `plus`. Not differentiable by itself.
    """
    length = b.shape[1]
    size = math.isqrt(length - 1) + 1
    h, reach = _blocks(b, size), _blocks(a, size)  # (B, blocks, size, ...)
    for t in range(1, size):
        h[:, :, t] = plus(times(reach[:, :, t], h[:, :, t - 1]), h[:, :, t])
        reach[:, :, t] = times(reach[:, :, t], reach[:, :, t - 1])
    for i in range(h.shape[1]):
        h[:, i] = plus(times(reach[:, i], state[:, None]), h[:, i])
        state = h[:, i, -1]
    return h.flatten(1, 2)[:, :length]


def _blocks(x: Tensor, size: int) -> Tensor:
    """A copy (B, blocks, size, ...), filled up with zeros."""
    count = -(-x.shape[1] // size)
    blocks = x.new_zeros(len(x), count * size, *x.shape[2:])
    blocks[:, : x.shape[1]] = x
    return blocks.view(len(x), count, size, *x.shape[2:])
