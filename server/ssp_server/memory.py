"""What a server does so that memory is no matter while it serves."""

import contextlib
import ctypes
import gc

import torch


def settle() -> None:
    """What is there now is there to stay: Python's collector need not look through it again, which would hold up all
    streams for a tenth of a second or more."""
    gc.freeze()


def give_back() -> None:
    """To the machine, which allocators do not do by themselves."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, TypeError):  # a C library without it; Windows
        ctypes.CDLL(None).malloc_trim(0)
