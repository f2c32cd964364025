"""A reset within a row gives what a row of its own gives, for every mixer and for whole models."""

import pytest
import torch
from torch import Tensor

from ssp_runtime.resets import forward_with_resets, reset
from ssp_runtime.state import State
from tests.ssp_runtime import subjects
from tests.ssp_runtime.laws import LENGTH, Subject, assert_close, poisoned
from tests.ssp_runtime.subjects import MIXERS, MODELS

RESETS = ((), (0,), (1,), (7, 8, 20), (LENGTH - 1,))
LENGTHS = [LENGTH, LENGTH, 0, 18, LENGTH]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MIXERS)
def test_mixers(name: str) -> None:
    _check(subjects.mixer(name))


@pytest.mark.parametrize("name", MODELS)
def test_whole_models(name: str) -> None:
    _check(MODELS[name]())


@torch.no_grad()
def _check(subject: Subject) -> None:
    resets = torch.zeros(len(RESETS), LENGTH, dtype=torch.bool)
    for row, at in enumerate(RESETS):
        resets[row, list(at)] = True
    x, state = subject.draw(len(RESETS), LENGTH), subject.warm_state(len(RESETS))
    lengths = torch.tensor(LENGTHS)
    y, new = forward_with_resets(subject.fold, poisoned(x, LENGTHS), state, resets, lengths_B=lengths)
    for row, length in enumerate(LENGTHS):
        this = slice(row, row + 1)
        expected = _step_by_step(subject, x[this, :length], {n: t[this] for n, t in state.items()}, resets[this])
        assert_close(subject, (y[this, :length], {n: t[this] for n, t in new.items()}), expected, f"row {row}, stepped")


def _step_by_step(subject: Subject, x: Tensor, state: State, resets: Tensor) -> tuple[Tensor, State]:
    outputs = []
    for t in range(x.shape[1]):
        y, state = subject.fold.step(x[:, t], reset(subject.fold, state, resets[:, t]))
        outputs.append(y)
    return torch.stack(outputs, dim=1) if outputs else subject.fold(x, state)[0], state


def test_gradients_stop_at_a_reset() -> None:
    subject = subjects.mixer("mamba(s6)")
    x, state = subject.draw(1, 9).requires_grad_(), subject.warm_state(1)
    resets = torch.arange(9)[None] == 5
    forward_with_resets(subject.fold, x, state, resets)[0][:, 5:].sum().backward()  # type: ignore[no-untyped-call]  # torch's
    assert x.grad is not None and not x.grad[:, :5].any() and x.grad[:, 5].any()
