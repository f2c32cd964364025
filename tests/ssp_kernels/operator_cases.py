"""The operators as cases of the same laws: how each is called, on what, and by which form.

Shape suffixes as in `ssp_kernels`; `tensors` are an operator's arguments up to the state, in their order.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_kernels import (
    causal_conv1d,
    delta_rule,
    dplr_ssm,
    linear_attention,
    linear_scan,
    lti_ssm,
    nonlinear_loop,
    selective_scan,
    stabilizer,
    window_attention,
    wkv,
)
from ssp_kernels.discretization import bilinear_dplr
from ssp_kernels.nonlinear_loop.slstm import slstm
from ssp_kernels.registry import Operator, Unavailable, chosen

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


States = tuple[Tensor, ...]


@dataclass(frozen=True)
class Arguments:
    """What an operator is called with. `has_length` says which of the tensors are sequences (B, L, ...)."""

    tensors: tuple[Tensor | None, ...]
    has_length: tuple[bool, ...]
    states: States

    def map(self, change: Callable[[Tensor], Tensor]) -> "Arguments":
        tensors = tuple(None if t is None else change(t) for t in self.tensors)
        return replace(self, tensors=tensors, states=tuple(map(change, self.states)))

    def map_sequences(self, change: Callable[[Tensor], Tensor]) -> "Arguments":
        pairs = zip(self.tensors, self.has_length, strict=True)
        return replace(self, tensors=tuple(change(t) if t is not None and has else t for t, has in pairs))

    def tokens(self, start: int, stop: int) -> "Arguments":
        return self.map_sequences(lambda t: t[:, start:stop])

    def token(self, t: int) -> "Arguments":
        return self.map_sequences(lambda sequence: sequence[:, t])

    def rows(self, start: int, stop: int) -> "Arguments":
        part = self.map_sequences(lambda t: t[start:stop])
        return replace(part, states=tuple(state[start:stop] for state in self.states))

    def all(self) -> list[Tensor]:
        return [t for t in (*self.tensors, *self.states) if t is not None]

    def differentiable(self) -> list[Tensor]:
        return [t for t in self.all() if t.is_floating_point()]


Draw = Callable[..., Tensor]  # normal numbers of the given shape


@dataclass(frozen=True)
class Case:
    """`draw(normal, B, L)` gives the tensors and the states, a state that the operator can be in. `recurrence` is what
    has the operator's functions, where that is not its module."""

    name: str
    operator: Operator[Any]
    has_length: tuple[bool, ...]
    draw: Callable[[Draw, int, int], tuple[tuple[Tensor | None, ...], States]]
    recurrence: Any = None

    def arguments(self, batch: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Arguments:
        generator = torch.Generator().manual_seed(seed)
        tensors, states = self.draw(lambda *shape: torch.randn(shape, generator=generator), batch, length)
        return Arguments(tensors, self.has_length, states).map(lambda t: t.to(dtype) if t.is_floating_point() else t)


def _selective_scan(features: int, states: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        x, dt = normal(batch, length, features), normal(batch, length, features).exp() / 10
        A, B, C = -normal(features, states).exp(), normal(batch, length, states), normal(batch, length, states)
        return (x, dt, A, B, C), (normal(batch, features, states),)

    has_length = (True, True, False, True, True)
    return Case(f"selective_scan-{features}x{states}", selective_scan.OPERATOR, has_length, draw)


def _causal_conv1d(features: int, width: int, *, bias: bool) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor | None, ...], States]:
        tensors = (normal(batch, length, features), normal(features, width), normal(features) if bias else None)
        return tensors, (normal(batch, features, width - 1),)

    return Case(f"causal_conv1d-{features}x{width}", causal_conv1d.OPERATOR, (True, False, False), draw)


def _lti_ssm(features: int, states: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        decay = torch.polar(torch.exp(-normal(features, states).exp() / 10), normal(features, states))
        x, Bbar, C = normal(batch, length, features), normal(features, states, 2), normal(features, states, 2)
        return (x, torch.view_as_real(decay), Bbar, C), (normal(batch, features, states, 2),)

    return Case(f"lti_ssm-{features}x{states}", lti_ssm.OPERATOR, (True, False, False, False), draw)


def _dplr_ssm(features: int, states: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        A = torch.complex(-normal(features, states).exp(), 3 * normal(features, states))
        P, B = (torch.view_as_complex(normal(features, states, 2)) for _ in range(2))
        coefficients = bilinear_dplr(A, P, B, normal(features, 1).exp() / 10)
        x, C, state = normal(batch, length, features), normal(features, states, 2), normal(batch, features, states, 2)
        return (x, *map(torch.view_as_real, coefficients), C), (state,)

    return Case(f"dplr_ssm-{features}x{states}", dplr_ssm.OPERATOR, (True, *[False] * 5), draw)


def _linear_scan(features: int, *, is_complex: bool) -> Case:
    pair = (2,) if is_complex else ()

    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        b, a = normal(batch, length, features, *pair), torch.tanh(normal(batch, length, features, *pair)) / 2**0.5
        return (b, a), (normal(batch, features, *pair),)

    name = "complex" if is_complex else "real"
    return Case(f"linear_scan-{features}-{name}", linear_scan.OPERATOR, (True, True), draw)


def _linear_attention(heads: int, keys: int, values: int, *, decays: int, bonus: bool) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor | None, ...], States]:
        q, k = normal(batch, length, heads, keys), normal(batch, length, heads, keys)
        v, log_decay = normal(batch, length, heads, values), -normal(batch, length, heads, decays).exp() / 10
        return (q, k, v, log_decay, normal(heads, keys) if bonus else None), (normal(batch, heads, keys, values),)

    has_length = (True, True, True, True, False)
    name = f"linear_attention-{heads}x{keys}x{values}-{decays}{'-bonus' if bonus else ''}"
    return Case(name, linear_attention.OPERATOR, has_length, draw)


def _delta_rule(heads: int, keys: int, values: int, *, decays: int) -> Case:
    """Transitions `P (diag(decay) - beta n n^T) P^-1` with diagonal P, |n| = 1 and beta below 1, which grow nothing."""

    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        q, k = normal(batch, length, heads, keys), normal(batch, length, heads, keys)
        v, log_decay = normal(batch, length, heads, values), -normal(batch, length, heads, decays).exp() / 10
        n = torch.nn.functional.normalize(normal(batch, length, heads, keys), dim=-1)
        P, beta = (normal(heads, keys) / 2).exp(), torch.sigmoid(normal(batch, length, heads, 1))
        return (q, k, v, log_decay, -beta * P * n, n / P), (normal(batch, heads, keys, values),)

    return Case(f"delta_rule-{heads}x{keys}x{values}-{decays}", delta_rule.OPERATOR, (True,) * 6, draw)


def _stabilizer(features: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        log_input, log_decay = 3 * normal(batch, length, features), -normal(batch, length, features).exp()
        return (log_input, log_decay), (normal(batch, features),)

    return Case(f"stabilizer-{features}", stabilizer.OPERATOR, (True, True), draw)


def _window_attention(window: int, *, heads: int, groups: int, keys: int, values: int, blocks: bool = False) -> Case:
    """Rings that have turned, are just full, part full, and empty; what their empty slots hold must not matter. Keys
    are in eighths, so that scores of huge queries have no roundings for the softmax to blow up."""

    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor | None, ...], States]:
        k, ring = normal(batch, length, groups, keys), normal(batch, window, groups, keys)
        seen = torch.tensor([3 * window + 1, window, 2, 0])[torch.arange(batch) % 4]
        positions = seen[:, None] + torch.arange(length)
        since = positions // window * window if blocks else None
        tensors = (normal(batch, length, heads, keys), _in_eighths(k), normal(batch, length, groups, values))
        return (*tensors, positions, since), (_in_eighths(ring), normal(batch, window, groups, values))

    name = f"window_attention-{window}-{heads}x{groups}x{keys}x{values}{'-blocks' if blocks else ''}"
    return Case(name, window_attention.OPERATOR, (True,) * 5, draw)


def _in_eighths(x: Tensor) -> Tensor:
    return (8 * x).round() / 8


def _wkv(features: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        tensors = (2 * normal(batch, length, features), normal(batch, length, features))
        coefficients = (-normal(batch, length, features).exp(), normal(features))
        n, d, m = (normal(batch, features) for _ in range(3))
        return (*tensors, *coefficients), (n, 1 + d.abs(), m)

    return Case(f"wkv-{features}", wkv.OPERATOR, (True, True, True, False), draw)


def _slstm(heads: int, features: int) -> Case:
    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        x, R = normal(batch, length, heads, 4, features), normal(heads, features, 4, features)
        c, n, h, m = (normal(batch, heads, features) for _ in range(4))
        return (x, R), (c, 1 + n.abs(), torch.tanh(h), m)

    return Case(f"slstm-{heads}x{features}", nonlinear_loop.OPERATOR, (True, False), draw, recurrence=slstm)


def _loop_of_one_state(features: int) -> Case:
    def cell(x: Tensor, gate: Tensor, weight: Tensor, h: Tensor) -> tuple[Tensor, States]:
        h = torch.tanh(x + weight * h) * torch.sigmoid(gate)
        return h, (h,)

    def draw(normal: Draw, batch: int, length: int) -> tuple[tuple[Tensor, ...], States]:
        x, gate = normal(batch, length, features), normal(batch, length, features)
        return (x, gate, normal(features)), (normal(batch, features),)

    loop = nonlinear_loop.NonlinearLoop(cell, num_sequences=2)
    return Case(f"nonlinear_loop-{features}", nonlinear_loop.OPERATOR, (True, True, False), draw, recurrence=loop)


CASES = (
    _selective_scan(7, 5),
    _selective_scan(37, 16),
    _causal_conv1d(7, 4, bias=True),
    _causal_conv1d(5, 1, bias=False),
    _lti_ssm(7, 3),
    _dplr_ssm(7, 3),
    _linear_scan(7, is_complex=False),
    _linear_scan(5, is_complex=True),
    _linear_attention(2, 5, 3, decays=1, bonus=False),
    _linear_attention(2, 5, 3, decays=5, bonus=False),
    _linear_attention(3, 4, 4, decays=4, bonus=True),
    _delta_rule(2, 5, 3, decays=1),
    _delta_rule(2, 5, 3, decays=5),
    _stabilizer(7),
    _wkv(7),
    _slstm(2, 3),
    _loop_of_one_state(7),
    _window_attention(4, heads=4, groups=2, keys=5, values=3),
    _window_attention(37, heads=3, groups=1, keys=4, values=4),
    _window_attention(5, heads=2, groups=2, keys=3, values=3, blocks=True),
)

# Of more states than features: for what is measured.
LARGE_CASES = (
    _selective_scan(37, 16),
    _linear_attention(2, 24, 40, decays=1, bonus=False),
    _linear_attention(2, 24, 40, decays=24, bonus=True),
    _delta_rule(2, 24, 40, decays=1),
    _delta_rule(2, 24, 40, decays=24),
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

    def forward(self, given: Arguments, lengths_B: Tensor | None = None) -> tuple[Tensor, States]:
        return self._call(self.form_name, "forward", given, lengths_B)

    def step(self, given: Arguments, out: States | None = None) -> tuple[Tensor, States]:
        """`given` holds one token."""
        return self._call(self.form_name, "step", given, None if out is None else _packed(out))

    def reference(self, given: Arguments) -> tuple[Tensor, States]:
        """What the definition says, from the same numbers in float64."""
        given = given.map(lambda t: t.double() if t.is_floating_point() else t)
        return self._call("reference", "forward", given, None)

    def require(self) -> None:
        """Skips the test where the form cannot run."""
        try:
            self.case.operator.form(self.form_name)
        except Unavailable as reason:
            pytest.skip(f"{self.form_name}: {reason}")

    def _call(self, form_name: str, function: str, given: Arguments, last: object) -> tuple[Tensor, States]:
        """Through the operator's own functions, which mask padding, with that form underneath."""
        recurrence = self.case.recurrence or importlib.import_module(f"ssp_kernels.{self.case.operator.name}")
        self.case.operator.form(form_name)
        with chosen(form_name):
            y, states = getattr(recurrence, function)(*given.tensors, _packed(given.states), last)
        return y, states if isinstance(states, tuple) else (states,)


def _packed(states: States) -> Tensor | States:
    """As operators take them: a single one by itself."""
    return states[0] if len(states) == 1 else states


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


def assert_same(found: tuple[Tensor, States], expected: tuple[Tensor, States], tolerance: float) -> None:
    """Outputs and states."""
    assert_close(found[0], expected[0], tolerance)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert_close(ours, theirs, tolerance)
