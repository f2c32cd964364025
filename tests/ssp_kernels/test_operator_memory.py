"""What training holds grows with the length, but not with length times states, in any form made for it."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.ssp_kernels.operator_cases import CASES, LARGE_CASES, Arguments, Case, Subject


def _subjects(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    found = [Subject(case, form) for case in cases for form in ("torch", "native") if form in case.operator.form_names]
    return pytest.mark.parametrize("subject", found, ids=lambda subject: f"{subject.case.name}-{subject.form_name}")


class _Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Follows the memory of every tensor made within: how much of it is alive, and the most there ever was."""

    def __init__(self, given: Arguments) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._given = {t.untyped_storage().data_ptr() for t in given.all()}
        self._sizes: dict[StorageWeakRef, int] = {}
        self._at_most = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in filter(torch.is_tensor, tree_leaves(result)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._given:
                self._sizes[StorageWeakRef(storage)] = storage.nbytes()  # type: ignore[no-untyped-call]  # torch's
                self._at_most += storage.nbytes()
        if self._at_most > self.peak:
            self.peak = max(self.peak, self.alive())
        return result

    def alive(self) -> int:
        living = (ref for ref in self._sizes if not ref.expired())  # type: ignore[no-untyped-call]  # torch's
        self._sizes = {ref: self._sizes[ref] for ref in living}
        self._at_most = sum(self._sizes.values())
        return self._at_most


def _training_memory(subject: Subject, given: Arguments) -> tuple[int, int]:
    """Bytes held between forward and backward, and the most at any time."""
    given = given.map(lambda t: t.requires_grad_(t.is_floating_point()))
    with _Allocated(given) as memory:
        y, final = subject.forward(given)
        held = memory.alive()
        torch.autograd.backward(y.sum() + final[0].sum())
    return held, memory.peak


def _materialised(given: Arguments) -> int:
    """Bytes of the states after every token."""
    x, (state,) = given.tensors[0], given.states
    assert x is not None
    return x.shape[1] * state.numel() * state.element_size()


@_subjects(LARGE_CASES)
def test_training_holds_nothing_of_length_times_states(subject: Subject) -> None:
    subject.require()
    given = subject.arguments(1, 1024, torch.float32)
    held, peak = _training_memory(subject, given)
    assert held < _materialised(given) / 8
    assert peak < _materialised(given)


@pytest.mark.slow
@_subjects(CASES + LARGE_CASES)
def test_training_memory_is_linear_in_length(subject: Subject) -> None:
    subject.require()
    short, long = (_training_memory(subject, subject.arguments(1, length, torch.float32)) for length in (1024, 4096))
    for of_short, of_long in zip(short, long, strict=True):
        assert of_long < 4.1 * of_short


def test_the_measure_sees_what_the_reference_holds() -> None:
    subject = Subject(LARGE_CASES[0], "reference")
    given = subject.arguments(2, 64, torch.float32)
    held, _ = _training_memory(subject, given)
    assert held > 2 * _materialised(given)
