"""Gradients of every form equal those of autograd through the reference loop."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssp_kernels import selective_scan
from ssp_kernels.registry import chosen
from tests.ssp_kernels.operator_cases import TOLERANCE, Arguments, States, Subject, assert_close, subjects

DIFFERENTIABLE_ONCE = {("causal_conv1d", "native"), ("selective_scan", "native"), ("selective_scan", "triton")}

Loss = Callable[[Tensor, States], Tensor]

LOSSES: dict[str, Loss] = {
    "outputs and state": lambda y, states: (y * torch.sin(y)).sum() + _sum(s * torch.cos(s) for s in _floating(states)),
    "outputs": lambda y, _states: y.sum(),
    "state": lambda _y, states: _sum(state.square() for state in _floating(states)),
}


def _floating(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [t for t in tensors if t.is_floating_point()]


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([t.sum() for t in tensors]).sum()


def _tracked(given: Arguments) -> Arguments:
    return given.map(lambda t: t.detach().clone().requires_grad_(t.is_floating_point()))


def _gradients(
    forward: Callable[[Arguments], tuple[Tensor, States]], given: Arguments, loss: Loss
) -> tuple[Tensor, ...]:
    given = _tracked(given)
    wanted, total = given.differentiable(), loss(*forward(given))
    if not total.requires_grad:  # nothing of length 0 reaches an output
        return tuple(torch.zeros_like(t) for t in wanted)
    return torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_equal_those_of_the_reference(fast_subject: Subject, loss: str, dtype: torch.dtype) -> None:
    lengths = (
        fast_subject.lengths if dtype == torch.float64 and loss == "outputs and state" else fast_subject.lengths[2:-2]
    )
    for length in lengths:
        given = fast_subject.arguments(2, length, dtype)
        expected = _gradients(fast_subject.reference, given, LOSSES[loss])
        for ours, theirs in zip(_gradients(fast_subject.forward, given, LOSSES[loss]), expected, strict=True):
            assert_close(ours, theirs, 5 * TOLERANCE[dtype])


def _call_with_gradients(fast_subject: Subject, given: Arguments) -> Callable[..., tuple[Tensor, ...]]:
    """The operator as a function of its differentiable arguments alone."""

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        y, states = fast_subject.forward(given.map(lambda t: next(rest) if t.is_floating_point() else t))
        return (y, *_floating(states))

    return call


def test_gradients_equal_finite_differences(fast_subject: Subject) -> None:
    given = _tracked(fast_subject.arguments(1, 2))
    call = _call_with_gradients(fast_subject, given)
    assert torch.autograd.gradcheck(call, given.differentiable(), fast_mode=True)


def test_gradients_of_gradients_are_right_or_refused(fast_subject: Subject) -> None:
    given = _tracked(fast_subject.arguments(1, 2))
    call = _call_with_gradients(fast_subject, given)
    if (fast_subject.case.operator.name, fast_subject.form_name) not in DIFFERENTIABLE_ONCE:
        assert torch.autograd.gradgradcheck(call, given.differentiable(), fast_mode=True)
        return
    gradients = torch.autograd.grad(
        call(*given.differentiable())[0].square().sum(), given.differentiable(), create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(gradients[0].sum())


def test_a_step_has_gradients_too(fast_subject: Subject) -> None:
    given = fast_subject.arguments(2, 1)
    expected = _gradients(fast_subject.reference, given, LOSSES["outputs and state"])
    found = _gradients(lambda a: fast_subject.step(a.token(0)), given, LOSSES["outputs and state"])
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, TOLERANCE[torch.float64])


def test_no_gradients_no_graph(fast_subject: Subject) -> None:
    given = fast_subject.arguments(2, fast_subject.lengths[-1])
    with torch.no_grad():
        y, states = fast_subject.forward(_tracked(given))
    assert not any(t.requires_grad for t in (y, *states))
    expected_y, expected = fast_subject.forward(given)
    assert torch.equal(y, expected_y) and all(map(torch.equal, states, expected))


def test_only_some_inputs_need_gradients(fast_subject: Subject) -> None:
    given = fast_subject.arguments(2, fast_subject.lengths[-1])
    states = tuple(s.clone().requires_grad_(s.is_floating_point()) for s in given.states)
    loss = LOSSES["outputs and state"](*fast_subject.forward(replace(given, states=states)))
    count = len(_floating(states))
    expected = _gradients(fast_subject.reference, given, LOSSES["outputs and state"])[-count:]
    found = torch.autograd.grad(loss, _floating(states), allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, 1e-9)


@pytest.mark.parametrize("kernels", ["torch", "native"])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.compile about its own graph breaks, by any name
def test_a_compiled_model_may_call_them(kernels: str) -> None:
    subject = next(s for s in subjects() if (s.case.operator.name, s.form_name) == ("selective_scan", kernels))
    subject.require()
    tensors = [t.requires_grad_() for t in subject.arguments(2, 33).all()]

    def loss(*tensors: Tensor) -> Tensor:
        y, final = selective_scan.forward(*tensors)
        return LOSSES["outputs and state"](y, (final,))

    with chosen(kernels):
        expected = torch.autograd.grad(loss(*tensors), tensors)
        found = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(*tensors), tensors)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, TOLERANCE[torch.float64])
