"""Compiles a C++ file for this processor, once, and loads it.

The library is plain C called through ctypes: it compiles in seconds, knows nothing of Python or torch, and runs on the
OpenMP threads that torch already holds, so that the two never compete for cores.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ssp_kernels.registry import Unavailable

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")


_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def supported(*tensors: Tensor | None) -> bool:
    """Whether all tensors lie on the CPU and are of one type that the libraries know."""
    present = [tensor for tensor in tensors if tensor is not None]
    first = present[0]
    return first.dtype in _SUFFIX and all(t.dtype == first.dtype and t.device.type == "cpu" for t in present)


def rows_contiguous(state: Tensor) -> Tensor:
    """The state itself if each of its rows is contiguous, as those of a pool are; else a copy."""
    return state if state[:1].is_contiguous() else state.contiguous()


def call(library: ctypes.CDLL, function: str, like: Tensor, *arguments: int | Tensor | None) -> None:
    """Calls the library's function for the type of `like`; tensors go as pointers to their first element."""
    entry = getattr(library, f"{function}_{_SUFFIX[like.dtype]}")
    entry(*(ctypes.c_int64(a) if isinstance(a, int) else pointer(a) for a in arguments))


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@cache
def load(source: Path) -> ctypes.CDLL:
    """The compiled library of a C++ file.

    Raises:
        Unavailable: no C++ compiler was found (CXX names one, else g++ or clang++), or it failed.
    """
    assert torch.get_num_threads()  # torch's OpenMP is loaded, so the library finds its symbols there
    try:
        library = _cache_folder() / f"{source.parent.name}-{_key(source)}.so"
        if not library.exists():
            _compile(source, library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise Unavailable(f"{source.name} cannot be compiled and loaded: {error}") from error


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    raise Unavailable("no C++ compiler was found: install g++, or set CXX")


def _cache_folder() -> Path:
    try:
        base = os.environ.get("SSP_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "ssp" / "native"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise Unavailable(f"no folder for compiled code ({error}); set SSP_CACHE to one that can be written") from error
    return folder


def _key(source: Path) -> str:
    """Changes with the code, the compiler, its flags and the processor, none of which a library survives."""
    version = subprocess.run([_compiler(), "--version"], capture_output=True, check=False).stdout
    parts = [source.read_bytes(), version, " ".join(_FLAGS).encode(), _processor()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"model name", b"Features"))}))
    except OSError:
        return platform.processor().encode()


def _compile(source: Path, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        objects, made = Path(folder) / "code.o", Path(folder) / "code.so"
        # Linked without -fopenmp: the OpenMP symbols are then torch's own.
        _run([_compiler(), *_FLAGS, "-c", str(source), "-o", str(objects)])
        _run([_compiler(), "-shared", str(objects), "-o", str(made)])
        made.replace(library)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)} failed: {done.stderr[-1000:]}")
