"""The operators as cases of the same laws: how each is called, on what, and by which form.

Shape suffixes as in `ssp_kernels`; `tensors` are an operator's arguments up to the state, in their order.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_kernels import causal_conv1d, lti_ssm, selective_scan
from ssp_kernels.padding import masked
from ssp_kernels.registry import Operator, Unavailable

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


@dataclass(frozen=True)
class Arguments:
    """What an operator is called with. `has_length` says which of the tensors are sequences (B, L, ...)."""

    tensors: tuple[Tensor | None, ...]
    has_length: tuple[bool, ...]
    state: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Arguments":
        tensors = tuple(None if t is None else change(t) for t in self.tensors)
        return replace(self, tensors=tensors, state=change(self.state))

    def map_sequences(self, change: Callable[[Tensor], Tensor]) -> "Arguments":
        pairs = zip(self.tensors, self.has_length, strict=True)
        return replace(self, tensors=tuple(change(t) if t is not None and has else t for t, has in pairs))

    def tokens(self, start: int, stop: int) -> "Arguments":
        return self.map_sequences(lambda t: t[:, start:stop])

    def token(self, t: int) -> "Arguments":
        return self.map_sequences(lambda sequence: sequence[:, t])

    def rows(self, start: int, stop: int) -> "Arguments":
        return replace(self.map_sequences(lambda t: t[start:stop]), state=self.state[start:stop])

    def all(self) -> list[Tensor]:
        return [t for t in (*self.tensors, self.state) if t is not None]


Draw = Callable[..., Tensor]  # normal numbers of the given shape


@dataclass(frozen=True)
class Case:
    name: str
    operator: Operator[Any]
    has_length: tuple[bool, ...]
    draw: Callable[[Draw, int, int], tuple[tuple[Tensor | None, ...], Tensor]]  # of (normal, B, L)

    def arguments(self, batch: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Arguments:
        generator = torch.Generator().manual_seed(seed)
        tensors, state = self.draw(lambda *shape: torch.randn(shape, generator=generator), batch, length)
        return Arguments(tensors, self.has_length, state).map(lambda t: t.to(dtype))


def _selective_scan(features: int, states: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], Tensor]:
        x, dt = normal(batch, length, features), normal(batch, length, features).exp() / 10
        A, B, C = -normal(features, states).exp(), normal(batch, length, states), normal(batch, length, states)
        return (x, dt, A, B, C), normal(batch, features, states)

    has_length = (True, True, False, True, True)
    return Case(f"selective_scan-{features}x{states}", selective_scan.OPERATOR, has_length, draw)


def _causal_conv1d(features: int, width: int, *, bias: bool) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor | None, ...], Tensor]:
        tensors = (normal(batch, length, features), normal(features, width), normal(features) if bias else None)
        return tensors, normal(batch, features, width - 1)

    return Case(f"causal_conv1d-{features}x{width}", causal_conv1d.OPERATOR, (True, False, False), draw)


def _lti_ssm(features: int, states: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], Tensor]:
        decay = torch.polar(torch.exp(-normal(features, states).exp() / 10), normal(features, states))
        x, Bbar, C = normal(batch, length, features), normal(features, states, 2), normal(features, states, 2)
        return (x, torch.view_as_real(decay), Bbar, C), normal(batch, features, states, 2)

    return Case(f"lti_ssm-{features}x{states}", lti_ssm.OPERATOR, (True, False, False, False), draw)


CASES = (
    _selective_scan(7, 5),
    _selective_scan(37, 16),
    _causal_conv1d(7, 4, bias=True),
    _causal_conv1d(5, 1, bias=False),
    _lti_ssm(7, 3),
)


@dataclass(frozen=True)
class Subject:
    """One form of one operator, where it runs."""

    case: Case
    form_name: str

    @property
    def interpreted(self) -> bool:
        return self.form_name == "triton" and INTERPRETED

    @property
    def lengths(self) -> tuple[int, ...]:
        """Around the ends of a segment or block: of 32 tokens, or of 2 where interpretation is slow (see conftest)."""
        return (0, 1, 2, 5) if self.interpreted else (0, 1, 2, 31, 32, 33, 65, 100)

    @property
    def device(self) -> str:
        return "cuda" if self.form_name == "triton" and not INTERPRETED else "cpu"

    def arguments(self, batch: int, length: int, dtype: torch.dtype = torch.float64) -> Arguments:
        return self.case.arguments(batch, length, dtype).map(lambda t: t.to(self.device))

    def forward(self, given: Arguments, lengths_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _forward(self.case.operator.form(self.form_name), self.case, given, lengths_B)

    def step(self, given: Arguments, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`given` holds one token."""
        y, state = self.case.operator.form(self.form_name).step(*given.tensors, given.state, out)
        return y, state

    def reference(self, given: Arguments) -> tuple[Tensor, Tensor]:
        """What the definition says, from the same numbers in float64."""
        return _forward(self.case.operator.form("reference"), self.case, given.map(lambda t: t.double()), None)

    def require(self) -> None:
        """Skips the test where the form cannot run."""
        try:
            self.case.operator.form(self.form_name)
        except Unavailable as reason:
            pytest.skip(f"{self.form_name}: {reason}")


def _forward(form: Any, case: Case, given: Arguments, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
    if case.operator is not selective_scan.OPERATOR:
        y, state = form.forward(*given.tensors, given.state, lengths_B)
    else:
        x, dt, *others = given.tensors
        y, state = form.forward(x, None if dt is None else masked(dt, lengths_B), *others, given.state)
    return y, state


def subjects() -> Iterator[Subject]:
    for case in CASES:
        for name in case.operator.form_names:
            if not (name == "triton" and INTERPRETED and "37x16" in case.name):  # large for the interpreter
                yield Subject(case, name)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal to within `tolerance` times the largest expected number (at least 1)."""
    assert found.shape == expected.shape
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    found, expected = found.detach().double().cpu() / scale, expected.detach().double().cpu() / scale
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
