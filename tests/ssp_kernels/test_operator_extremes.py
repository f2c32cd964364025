"""Where a scan by division, a logarithm or an overflowing exp breaks: decays of 1 and of 0, huge inputs and steps."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssp_kernels.discretization import bilinear_dplr
from tests.ssp_kernels.operator_cases import TOLERANCE, Arguments, States, Subject, assert_close, assert_same, subjects

Others = list[Tensor | None]  # the tensors after the first

RATES = (-1e-8, -1e-4, -0.5, -1.0, -30.0, -1e3)
STEPS = (1e-4, 1.0, 50.0, 0.0)
REAL_DECAYS = (1.0, 0.999, 1e-8, 0.0, -0.999, -1.0)
POSITIVE_DECAYS = (1.0, 0.999, 0.0, 1e-8, 1.0)
DECAYS = (1.0, 0.999, 1e-8, 0.0, -0.999, -1.0, 1j, 0.6 + 0.8j, -0.3 + 0.4j, 1e-8j)


def _extreme(given: Arguments, subject: Subject) -> Arguments:
    """The same with |x| = 1e3 for the first tensor, and extreme decays among the features."""
    x, *others = given.tensors
    assert x is not None
    if subject.case.operator.name in EXTREMES:
        others = EXTREMES[subject.case.operator.name](others)
    return replace(given, tensors=(x.sign() * 1e3, *others))


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """The values, over and over, in the shape of another tensor."""
    index = torch.arange(like.numel() // values[0].numel()) % len(values)
    return values[index].reshape(like.shape).to(like.device, like.dtype)


def _selective_scan(others: Others) -> Others:
    """Every pairing of extreme step and rate."""
    dt, A, *rest = others
    assert dt is not None and A is not None
    rates = _spread(torch.tensor(RATES), A[0]).expand_as(A)
    return [_spread(torch.tensor(STEPS), dt[0, 0]).expand_as(dt), rates, *rest]


def _complex_decays(others: Others) -> Others:
    decay, *rest = others
    assert decay is not None
    return [_spread(torch.view_as_real(torch.tensor(DECAYS, dtype=torch.complex128)), decay), *rest]


def _linear_scan(others: Others) -> Others:
    a, *rest = others
    assert a is not None
    return _complex_decays(others) if a.ndim == 4 else [_spread(torch.tensor(REAL_DECAYS), a), *rest]


def _linear_attention(others: Others) -> Others:
    """A decay of 0 is minus infinity."""
    k, v, log_decay, *rest = others
    assert log_decay is not None
    return [k, v, _spread(torch.tensor(POSITIVE_DECAYS, dtype=torch.float64).log(), log_decay), *rest]


def _wkv(others: Others) -> Others:
    """In 1024ths, which float32 adds to k = 1e3 without roundings for the exponential to blow up."""
    v, log_decay, bonus = others
    assert log_decay is not None and bonus is not None
    log_decay = _spread(torch.tensor(POSITIVE_DECAYS, dtype=torch.float64).log(), log_decay)
    return [v, *((1024 * t).round() / 1024 for t in (log_decay, bonus))]


def _dplr_ssm(others: Others) -> Others:
    """Steps times rates that decay to 1, 0, almost -1, and -1, with rank one and without."""
    _, U, _, Bbar, C = others
    assert U is not None and Bbar is not None
    P, B = (torch.view_as_complex(t.contiguous()) for t in (U, Bbar))
    P = P * (torch.arange(len(P)) % 2).to(P)[:, None]
    dt = _spread(torch.tensor((1e-4, 1.0, 50.0)), P.real[:, :1])
    A = _spread(torch.tensor((-1e-12, -2.0, -0.5 + 40j, 1j, -1e3)), P) / dt
    coefficients = bilinear_dplr(A, P, B, dt)
    return [*map(torch.view_as_real, coefficients), C]


def _nonlinear_loop(others: Others) -> Others:
    """sLSTM's first two gates get nothing but the input: at 1e3 float32 is coarse, and their exponentials show it."""
    *rest, weights = others
    assert weights is not None
    return [*rest, weights * (torch.arange(4) > 1)[:, None] if weights.ndim == 4 else weights]


EXTREMES: dict[str, Callable[[Others], Others]] = {
    "selective_scan": _selective_scan,
    "dplr_ssm": _dplr_ssm,
    "lti_ssm": _complex_decays,
    "linear_scan": _linear_scan,
    "linear_attention": _linear_attention,
    "nonlinear_loop": _nonlinear_loop,
    "wkv": _wkv,
    "delta_rule": _linear_attention,  # a and b stay as they are: transitions must not grow
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values(fast_subject: Subject, dtype: torch.dtype) -> None:
    for length in fast_subject.lengths[1:]:
        given = _extreme(fast_subject.arguments(2, length, dtype), fast_subject)
        (y, states), (expected_y, expected) = fast_subject.forward(given), fast_subject.reference(given)
        for feature in range(y.shape[2]):  # each to its own scale: a step of 50 must not hide one of 1e-4
            assert_close(y[:, :, feature], expected_y[:, :, feature], TOLERANCE[dtype])
            for ours, theirs in zip(states, expected, strict=True):
                assert_close(ours[:, feature], theirs[:, feature], TOLERANCE[dtype])


def test_steps(fast_subject: Subject) -> None:
    given = _extreme(fast_subject.arguments(2, 1), fast_subject)
    y, states = fast_subject.reference(given)
    assert_same(fast_subject.step(given.token(0)), (y[:, 0], states), TOLERANCE[torch.float64])


def test_gradients(fast_subject: Subject) -> None:
    given = _extreme(fast_subject.arguments(2, fast_subject.lengths[-1]), fast_subject).map(
        lambda t: t.clone().requires_grad_(t.is_floating_point())
    )

    def gradients(forward: Callable[[Arguments], tuple[Tensor, States]]) -> tuple[Tensor, ...]:
        y, states = forward(given)
        total = y.sum() + sum(state.sum() for state in states if state.is_floating_point())
        return torch.autograd.grad(total, given.differentiable(), allow_unused=True, materialize_grads=True)

    for ours, theirs in zip(gradients(fast_subject.forward), gradients(fast_subject.reference), strict=True):
        assert_close(ours, theirs, TOLERANCE[torch.float64])


SELECTIVE_SCANS = [s for s in subjects() if s.case.operator.name == "selective_scan" and s.form_name != "reference"]


@pytest.mark.parametrize("scan", SELECTIVE_SCANS, ids=lambda scan: f"{scan.case.name}-{scan.form_name}")
def test_a_step_of_zero_is_the_identity_on_the_state(scan: Subject) -> None:
    scan.require()
    given = scan.arguments(2, 5, torch.float32)
    x, dt, *rest = given.tensors
    assert dt is not None
    _, (state,) = scan.forward(replace(given, tensors=(x, torch.zeros_like(dt), *rest)))
    assert torch.equal(state, given.states[0])
