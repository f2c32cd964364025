"""Where a scan by division, a logarithm or an overflowing exp breaks: decays of 1 and of 0, huge inputs and steps."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.ssp_kernels.operator_cases import TOLERANCE, Arguments, Subject, assert_close

RATES = (-1e-8, -1e-4, -0.5, -1.0, -30.0, -1e3)
STEPS = (1e-4, 1.0, 50.0, 0.0)
DECAYS = (1.0, 0.999, 1e-8, 0.0, -0.999, -1.0, 1j, 0.6 + 0.8j, -0.3 + 0.4j, 1e-8j)


def _extreme(given: Arguments, subject: Subject) -> Arguments:
    """The same with |x| = 1e3, and with every pairing of extreme step and decay somewhere among the features."""
    x, *others = given.tensors
    assert x is not None
    x = x.sign() * 1e3
    if subject.case.name.startswith("selective_scan"):
        dt, A, *rest = others
        assert dt is not None and A is not None
        rates = torch.tensor(RATES, dtype=A.dtype, device=A.device).repeat(-(-A.shape[1] // len(RATES)))[: A.shape[1]]
        steps = torch.tensor(STEPS, dtype=dt.dtype, device=dt.device).repeat(-(-dt.shape[2] // len(STEPS)))
        return replace(given, tensors=(x, steps[: dt.shape[2]].expand_as(dt), rates.expand_as(A), *rest))
    if subject.case.name.startswith("lti_ssm"):
        decay, *rest = others
        assert decay is not None
        decays = torch.view_as_real(torch.tensor(DECAYS, dtype=torch.complex128)).to(decay.dtype)
        wanted = decay[..., 0].numel()
        decays = decays.repeat(-(-wanted // len(DECAYS)), 1)[:wanted]
        return replace(given, tensors=(x, decays.view_as(decay), *rest))
    return replace(given, tensors=(x, *others))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values(fast_subject: Subject, dtype: torch.dtype) -> None:
    for length in fast_subject.lengths[1:]:
        given = _extreme(fast_subject.arguments(2, length, dtype), fast_subject)
        y_BLD, state = fast_subject.forward(given)
        expected_y, expected_state = fast_subject.reference(given)
        for feature in range(y_BLD.shape[2]):  # each to its own scale: a step of 50 must not hide one of 1e-4
            assert_close(y_BLD[..., feature], expected_y[..., feature], TOLERANCE[dtype])
            assert_close(state[:, feature], expected_state[:, feature], TOLERANCE[dtype])


def test_steps(fast_subject: Subject) -> None:
    given = _extreme(fast_subject.arguments(2, 1), fast_subject)
    expected_y, expected_state = fast_subject.reference(given)
    y, state = fast_subject.step(given.token(0))
    assert_close(y, expected_y[:, 0], TOLERANCE[torch.float64])
    assert_close(state, expected_state, TOLERANCE[torch.float64])


def test_gradients(fast_subject: Subject) -> None:
    given = _extreme(fast_subject.arguments(2, fast_subject.lengths[-1]), fast_subject).map(
        lambda t: t.clone().requires_grad_()
    )

    def gradients(forward: Callable[[Arguments], tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        y, state = forward(given)
        return torch.autograd.grad(y.sum() + state.sum(), given.all())

    for ours, theirs in zip(gradients(fast_subject.forward), gradients(fast_subject.reference), strict=True):
        assert_close(ours, theirs, TOLERANCE[torch.float64])


def test_a_step_of_zero_is_the_identity_on_the_state(fast_subject: Subject) -> None:
    if not fast_subject.case.name.startswith("selective_scan"):
        pytest.skip("only the selective scan has a step size")
    given = fast_subject.arguments(2, 5, torch.float32)
    x, dt, *rest = given.tensors
    assert dt is not None
    _, state = fast_subject.forward(replace(given, tensors=(x, torch.zeros_like(dt), *rest)))
    assert torch.equal(state, given.state)
