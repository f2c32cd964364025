"""Calls that must leave a trace for autograd, and how long a trace."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


def needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def recomputed(function: Callable[..., T], *arguments: Tensor | None) -> T:
    """`function(*arguments)`; if gradients are wanted only the arguments are kept for them, and the rest is computed
    again (checkpointing)."""
    if not needs_grad(*arguments):
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]  # torch's
