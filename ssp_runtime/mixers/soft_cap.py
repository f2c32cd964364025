"""Numbers kept within bounds smoothly (Gemma Team, 2024, "Gemma 2: Improving Open Language Models at a Practical Size",
section 2)."""

import torch
from torch import Tensor


def soft_capped(x: Tensor, cap: float | None) -> Tensor:
    """`cap tanh(x / cap)`: x where it is small, and never beyond the cap; without one x itself."""
    return x if cap is None else cap * torch.tanh(x / cap)
