"""What every Triton form asks before it launches a kernel. Importing this needs triton.

With TRITON_INTERPRET=1 in the environment before triton is imported, kernels run on CPU tensors.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
from torch import Tensor

from ssp_kernels.registry import Unavailable

_DTYPES = (torch.float32, torch.float64)


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def _nothing() -> None:
    pass


INTERPRETED = not isinstance(_nothing, triton.runtime.JITFunction)


def check(launch: Callable[[Tensor], object]) -> None:
    """Raises `Unavailable` with the reason where kernels cannot run; a first small launch, given a one, tells."""
    if not (INTERPRETED or torch.cuda.is_available()):
        raise Unavailable("triton needs a CUDA device, or TRITON_INTERPRET=1 to interpret its kernels on the CPU")
    try:
        launch(torch.ones((), device="cpu" if INTERPRETED else "cuda"))
    except Exception as error:  # whatever the compiler or the driver lacks
        raise Unavailable(f"triton does not run here: {error}") from error


def supported(*tensors: Tensor | None) -> bool:
    """Whether all are of one dtype that the kernels know, on one device where they run."""
    given = [t for t in tensors if t is not None]
    first = given[0]
    return first.dtype in _DTYPES and all(
        t.dtype == first.dtype and t.device == first.device and (t.is_cuda or INTERPRETED) for t in given
    )


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
