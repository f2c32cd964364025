"""How tokens go through a model: many at once, or one. A layer is written once, as a function of a `Run`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ssp_runtime.state import State


class Recurrence(Protocol):
    """An operator of `ssp_kernels`: a module with two functions that do the same.

    `forward(*tensors, state, lengths_B)` is for tokens (B, L, ...), `step(*tensors, state, out)` for one (B, ...).
    Both return outputs and the new state. A state is a tensor or a tuple of tensors.
    """

    @property
    def forward(self) -> Callable[..., tuple[Tensor, Any]]: ...
    @property
    def step(self) -> Callable[..., tuple[Tensor, Any]]: ...


class Run(ABC):
    """One call of a layer: the state its tokens start from, and how recurrences advance over them.

    `new` collects the states that come out. `beside` holds what layers tell each other about the same tokens, besides
    their activations; it does not outlive the call.
    """

    def __init__(self, state: State, beside: dict[str, Tensor] | None = None) -> None:
        self.new: State = {}
        self.beside = {} if beside is None else beside
        self._state, self._prefix = state, ""

    def within(self, prefix: str) -> Self:
        """The same run for an inner layer, whose states are named without the prefix."""
        inner = object.__new__(type(self))  # copy.copy takes ten times as long, once a layer and token
        inner.__dict__.update(self.__dict__)
        inner._prefix = self._prefix + prefix
        return inner

    def __call__(self, operator: Recurrence, *tensors: Tensor | None, state: str | tuple[str, ...]) -> Tensor:
        """Outputs of the operator for the tokens, from and to the states of those names.

        It computes in the dtype of its first state; its outputs have that of its first tensor.
        """
        names = [self._prefix + name for name in ((state,) if isinstance(state, str) else state)]
        dtype = self._state[names[0]].dtype
        y, after = self._advance(operator, [_in(dtype, tensor) for tensor in tensors], names)
        self.new.update(zip(names, (after,) if isinstance(after, Tensor) else after, strict=True))
        return y.to(tensors[0].dtype) if tensors[0] is not None and y.is_floating_point() else y

    @abstractmethod
    def _advance(
        self, operator: Recurrence, tensors: Sequence[Tensor | None], names: Sequence[str]
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]: ...


class ParallelRun(Run):
    """Over (B, L, ...). Tokens from `lengths_B` on are padding, which leaves states alone."""

    def __init__(self, state: State, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> None:
        super().__init__(state, beside)
        self._lengths_B = lengths_B

    def _advance(
        self, operator: Recurrence, tensors: Sequence[Tensor | None], names: Sequence[str]
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        return _parallel.get()(operator, tensors, _taken(self._state, names), self._lengths_B)


# Outputs and the new state of an operator for its tensors, a state, and the valid tokens of each row.
Advance = Callable[[Recurrence, Sequence[Tensor | None], Any, Tensor | None], tuple[Tensor, Any]]


def _forward(
    operator: Recurrence, tensors: Sequence[Tensor | None], state: Any, lengths_B: Tensor | None
) -> tuple[Tensor, Any]:
    return operator.forward(*tensors, state, lengths_B)


_parallel: ContextVar[Advance] = ContextVar("parallel", default=_forward)


@contextmanager
def advancing_by(advance: Advance) -> Iterator[None]:
    """Within it parallel runs advance by that function, not by the operators' own `forward`."""
    token = _parallel.set(advance)
    try:
        yield
    finally:
        _parallel.reset(token)


class RecurrentRun(Run):
    """Over one token of each row (B, ...). With `out` new states are written there, and it may be the state itself."""

    def __init__(self, state: State, out: State | None = None) -> None:
        super().__init__(state)
        self._out = out

    def _advance(
        self, operator: Recurrence, tensors: Sequence[Tensor | None], names: Sequence[str]
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        out = None if self._out is None else _taken(self._out, names)
        return operator.step(*tensors, _taken(self._state, names), out)


def _in(dtype: torch.dtype, tensor: Tensor | None) -> Tensor | None:
    """A tensor of floating numbers in that dtype, if it is one of floating numbers, too."""
    if tensor is None or tensor.dtype is dtype or not tensor.is_floating_point() or not dtype.is_floating_point:
        return tensor
    return tensor.to(dtype)


def _taken(state: State, names: Sequence[str]) -> Tensor | tuple[Tensor, ...]:
    return state[names[0]] if len(names) == 1 else tuple(state[name] for name in names)
