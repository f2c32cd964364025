"""What every format checks of a tensor before a model takes it."""

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_PIECE = 1 << 20  # numbers looked at together: a whole embedding would take as much memory again


def fitting(name: str, given: Tensor, wanted: Tensor) -> Tensor:
    """The tensor given, which may take the place of the one wanted.

    Raises:
        ArtifactError: it is of another shape, or does not hold finite numbers.
    """
    if given.shape != wanted.shape:
        raise ArtifactError(f"{name}: {tuple(given.shape)} is given, {tuple(wanted.shape)} is wanted")
    if given.dtype not in DTYPES:
        raise ArtifactError(f"{name} is of {given.dtype}; save it as float32, bfloat16 or float16")
    if not all(bool(torch.isfinite(part).all()) for part in torch.split(given.reshape(-1), _PIECE)):
        raise ArtifactError(f"{name} holds NaN or infinite values; take a checkpoint from before there were any")
    return given
