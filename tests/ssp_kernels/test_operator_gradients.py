"""Gradients of every form equal those of autograd through the reference loop."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssp_kernels import selective_scan
from ssp_kernels.registry import chosen
from tests.ssp_kernels.operator_cases import TOLERANCE, Arguments, Subject, assert_close, subjects

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "outputs and state": lambda y, state: (y * torch.sin(y)).sum() + (state * torch.cos(state)).sum(),
    "outputs": lambda y, _state: y.sum(),
    "state": lambda _y, state: state.square().sum(),
}


def _gradients(
    forward: Callable[[Arguments], tuple[Tensor, Tensor]],
    given: Arguments,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, ...]:
    given = given.map(lambda t: t.detach().requires_grad_())
    total = loss(*forward(given))
    if not total.requires_grad:  # nothing of length 0 reaches an output
        return tuple(torch.zeros_like(t) for t in given.all())
    return torch.autograd.grad(total, given.all(), allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_equal_those_of_the_reference(fast_subject: Subject, loss: str, dtype: torch.dtype) -> None:
    lengths = (
        fast_subject.lengths if dtype == torch.float64 and loss == "outputs and state" else fast_subject.lengths[2:-2]
    )
    for length in lengths:
        given = fast_subject.arguments(2, length, dtype)
        expected = _gradients(fast_subject.reference, given.map(torch.Tensor.double), LOSSES[loss])
        for ours, theirs in zip(_gradients(fast_subject.forward, given, LOSSES[loss]), expected, strict=True):
            assert_close(ours, theirs, 5 * TOLERANCE[dtype])


def test_gradients_equal_finite_differences(fast_subject: Subject) -> None:
    given = fast_subject.arguments(1, 2).map(lambda t: t.requires_grad_())
    inputs = given.all()

    def call(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        rest = iter(tensors)
        return fast_subject.forward(given.map(lambda _: next(rest)))

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


def test_gradients_of_gradients_are_refused_where_they_would_be_wrong(fast_subject: Subject) -> None:
    if fast_subject.form_name not in ("native", "triton"):
        pytest.skip("torch differentiates this form as often as one likes")
    given = fast_subject.arguments(1, 2).map(lambda t: t.requires_grad_())
    gradients = torch.autograd.grad(fast_subject.forward(given)[0].square().sum(), given.all(), create_graph=True)
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
    tracked = given.map(lambda t: t.clone().requires_grad_())
    with torch.no_grad():
        results = fast_subject.forward(tracked)
    assert not any(t.requires_grad for t in results)
    assert all(torch.equal(a, b) for a, b in zip(results, fast_subject.forward(given), strict=True))


def test_only_some_inputs_need_gradients(fast_subject: Subject) -> None:
    given = fast_subject.arguments(2, fast_subject.lengths[-1])
    state = given.state.clone().requires_grad_()
    y, final = fast_subject.forward(replace(given, state=state))
    expected = _gradients(fast_subject.reference, given, LOSSES["outputs and state"])[-1]
    assert_close(torch.autograd.grad(LOSSES["outputs and state"](y, final), state)[0], expected, 1e-9)


@pytest.mark.parametrize("kernels", ["torch", "native"])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.compile about its own graph breaks, by any name
def test_a_compiled_model_may_call_them(kernels: str) -> None:
    subject = next(s for s in subjects() if (s.case.operator.name, s.form_name) == ("selective_scan", kernels))
    subject.require()
    tensors = [t.requires_grad_() for t in subject.arguments(2, 33).all()]

    def loss(*tensors: Tensor) -> Tensor:
        y, final = selective_scan.forward(*tensors)
        return LOSSES["outputs and state"](y, final)

    with chosen(kernels):
        expected = torch.autograd.grad(loss(*tensors), tensors)
        found = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(*tensors), tensors)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, TOLERANCE[torch.float64])
