"""Whether a call must leave a trace for autograd."""

import torch
from torch import Tensor


def needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
