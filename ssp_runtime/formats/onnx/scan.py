"""Recurrences as Scan nodes: an operator's step is traced once, and the graph carries it over the tokens.

What an operator needs for this is its step form in plain torch, which each has: a new one costs nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssp_kernels.padding import valid_tokens
from ssp_runtime.run import Recurrence


def scanned(
    operator: Recurrence, tensors: Sequence[Tensor | None], state: Any, lengths_B: Tensor | None
) -> tuple[Tensor, Any]:
    """What `operator.forward(*tensors, state, lengths_B)` returns, to be traced with a dynamic batch: tensors that have
    it are sequences, the others are the same at every token."""
    states = (state,) if isinstance(state, Tensor) else tuple(state)
    sequences = {
        i: tensor.transpose(0, 1) for i, tensor in enumerate(tensors) if tensor is not None and _varies(tensor)
    }
    fixed = {i: tensor for i, tensor in enumerate(tensors) if tensor is not None and i not in sequences}
    along = list(sequences.values())
    if lengths_B is not None:  # whether a token is valid comes last
        along.append(valid_tokens(along[0].shape[0], lengths_B).transpose(0, 1))

    def token(*arguments: Tensor) -> list[Tensor]:
        before, rest = arguments[: len(states)], arguments[len(states) :]
        now, always = rest[: len(along)], rest[len(along) :]
        given = dict(zip(sequences, now, strict=False)) | dict(zip(fixed, always, strict=True))
        packed = before[0] if isinstance(state, Tensor) else before
        y, after = operator.step(*(given.get(i) for i in range(len(tensors))), packed, None)
        after = (after,) if isinstance(after, Tensor) else after
        if lengths_B is not None:
            after = tuple(_where(now[-1], *pair) for pair in zip(after, before, strict=True))
        return [tensor.clone() for tensor in (*after, y)]  # the scan's results must not share memory

    *last, y = torch.ops.higher_order.scan(token, list(states), along, tuple(fixed.values()))
    return y.transpose(0, 1), last[0] if isinstance(state, Tensor) else tuple(last)


def _varies(tensor: Tensor) -> bool:
    return tensor.ndim > 0 and isinstance(tensor.shape[0], torch.SymInt)


def _where(valid_B: Tensor, after: Tensor, before: Tensor) -> Tensor:
    return torch.where(valid_B.view(-1, *[1] * (after.ndim - 1)), after, before)
