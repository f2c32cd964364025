"""Sequences of any lengths as one batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Row = Sequence[int] | np.ndarray  # token ids, or numbers (L, d_input)


def padded(rows: Sequence[Row], device: torch.device | None = None) -> tuple[Tensor, Tensor | None]:
    """Inputs (B, L) or (B, L, d_input), padded on the right with zeros, and lengths (B,).

    The lengths are None if they are all the same, which spares the model its masks.
    """
    tensors = [torch.as_tensor(row, dtype=torch.float32 if isinstance(row, np.ndarray) else torch.long) for row in rows]
    lengths = [len(row) for row in rows]
    same = len(set(lengths)) == 1
    inputs = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device)
    return inputs, None if same else torch.tensor(lengths, device=device)
