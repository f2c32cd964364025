"""Which form of an operator runs: the fastest that is available for the tensors' device, or the one asked for."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

AUTO = "auto"
CHOICES = (AUTO, "reference", "torch", "native", "triton")
_PREFERENCE = {"cpu": ("native", "torch", "reference"), "cuda": ("triton", "torch", "reference")}

F = TypeVar("F")


class Unavailable(Exception):
    """A form cannot run here; the message says what is missing."""


@dataclass
class _Chosen:
    kernels: str = AUTO


_chosen = _Chosen()


def choose(kernels: str) -> None:
    """Selects the form for the whole process: one of `CHOICES`. Operators without that form keep their default.

    Raises:
        ValueError: no form has that name.
    """
    if kernels not in CHOICES:
        raise ValueError(f"kernels must be one of {', '.join(CHOICES)}, not {kernels!r}")
    _chosen.kernels = kernels


@contextmanager
def chosen(kernels: str) -> Iterator[None]:
    """`choose` for the length of a with-block."""
    before = _chosen.kernels
    choose(kernels)
    try:
        yield
    finally:
        _chosen.kernels = before


def in_triton(operator: str) -> Callable[[], Any]:
    """A loader of that operator's form in Triton."""

    def load() -> Any:
        try:
            module = importlib.import_module(f"ssp_kernels.{operator}.triton_form")
        except ImportError as error:
            raise Unavailable(f"triton is not installed: {error}") from error
        module.check()
        return module

    return load


class Operator(Generic[F]):
    """A recurrence and its forms; each is loaded when first asked for, by a function that may raise `Unavailable`."""

    def __init__(self, name: str, forms: Mapping[str, Callable[[], F]]) -> None:
        self.name = name
        self._loaders = forms
        self._loaded: dict[str, F] = {}
        self._reasons: dict[str, str] = {}  # why a form is unavailable

    @property
    def form_names(self) -> tuple[str, ...]:
        return tuple(self._loaders)

    @property
    def unavailable(self) -> Mapping[str, str]:
        """The forms that were asked for in vain, and why."""
        return dict(self._reasons)

    def form(self, name: str) -> F:
        """The form of that name. Raises `Unavailable` with the reason if it cannot run here."""
        if name in self._reasons:
            raise Unavailable(self._reasons[name])
        if name not in self._loaded:
            try:
                self._loaded[name] = self._loaders[name]()
            except Unavailable as reason:
                self._reasons[name] = str(reason)
                raise
        return self._loaded[name]

    def pick(self, tensor: Tensor) -> F:
        """The form to run on tensors like this one."""
        if _chosen.kernels in self._loaders:
            return self.form(_chosen.kernels)
        for name in _PREFERENCE.get(tensor.device.type, ("torch", "reference")):
            if name in self._loaders:
                try:
                    return self.form(name)
                except Unavailable:
                    continue
        raise AssertionError(f"{self.name} has no form for {tensor.device}")
