"""How likely tokens are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssp_runtime.errors import StateCorrupt

PIECE = 256  # tokens scored at once; each has logits over the whole vocabulary


def log_probabilities(logits_LV: Tensor, ids: Sequence[int]) -> list[float]:
    """Of each id under the logits of its place. Raises `StateCorrupt` if those are not finite."""
    if not bool(torch.isfinite(logits_LV).all()):
        raise StateCorrupt("the state of this session holds NaN or infinite values")
    ids_L = torch.tensor(ids, device=logits_LV.device)
    chosen_L1 = logits_LV.float().log_softmax(-1).gather(-1, ids_L[:, None])
    return [float(value) for value in chosen_L1[:, 0]]
