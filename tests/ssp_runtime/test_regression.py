"""Regression: what is learnt from, what is scored, and the model that comes of it."""

import math

import pytest
import torch
from torch import Tensor

from ssp_runtime.mixers.lru import LRUConfig
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import BlockConfig, ModelConfig, NormConfig, NumberEmbeddingConfig, ValuesHeadConfig
from ssp_runtime.models.model import SequenceRegressor
from ssp_runtime.training.regression import Regression
from ssp_runtime.training.scale import Scale
from ssp_runtime.training.series import Series

LENGTHS = (50, 2500, 31)  # out of order, and longer than what is scored at once


def regressor() -> SequenceRegressor:
    torch.manual_seed(0)
    config = ModelConfig(
        d_model=6,
        embedding=NumberEmbeddingConfig(d_input=2),
        layers=(BlockConfig(mixer=SimpleConfig(ssp=LRUConfig(d_state=4)), norm=NormConfig(kind="layer")),),
        head=ValuesHeadConfig(d_output=1),
        final_norm=None,
    )
    return SequenceRegressor(config)


def far_off(*lengths: int) -> list[Series]:
    """Series whose numbers lie far from 0 and 1."""
    torch.manual_seed(1)
    inputs = [torch.tensor([100.0, 1e-3]) * torch.randn(length, 2) + torch.tensor([500.0, 1.0]) for length in lengths]
    return [Series(inputs=x, targets=x.sum(1, keepdim=True) * 7) for x in inputs]


def regression(series: list[Series], *, heldout_fraction: float = 0.2) -> Regression:
    return Regression(series, heldout_fraction=heldout_fraction, batch_size=1, length=12)


@torch.no_grad()
def answers(model: SequenceRegressor, x: Tensor) -> Tensor:
    return model(x[None], model.initial_state(1))[0][0]  # type: ignore[no-any-return]  # nn.Module calls


def test_the_score_is_the_error_on_the_end_of_each_series_in_deviations_of_what_was_learnt_from() -> None:
    series, model = far_off(*LENGTHS), regressor()
    task = regression(series)
    score = task.evaluate(model).value
    task.finish(model)
    cuts = [int(0.8 * length) for length in LENGTHS]
    errors = [(answers(model, each.inputs) - each.targets)[cut:] for each, cut in zip(series, cuts, strict=True)]
    learnt = torch.cat([each.targets[:cut] for each, cut in zip(series, cuts, strict=True)])
    expected = torch.cat(errors).square().mean().sqrt() / learnt.std(correction=0)
    assert score == pytest.approx(float(expected), rel=1e-3)
    assert 0.5 < score < 2


def test_a_finished_model_takes_and_gives_the_numbers_themselves() -> None:
    (series,), model = far_off(400), regressor()
    task, inputs, targets = regression([series]), Scale.of(series.inputs[:320]), Scale.of(series.targets[:320])
    expected = answers(model, inputs.standardized(series.inputs)) * targets.std + targets.mean
    task.finish(model)
    torch.testing.assert_close(answers(model, series.inputs), expected.float(), rtol=1e-4, atol=1e-4)


def test_a_series_begins_with_the_initial_state_whatever_came_before_it() -> None:
    first, second = far_off(24, 24)
    model, together = regressor(), regression([first, second], heldout_fraction=0.5)
    losses = [together.loss(model).item() for _ in range(2)]
    scaled = [(together._series[i].inputs[:12], together._series[i].targets[:12]) for i in range(2)]
    expected = [float((answers(model, x) - y).square().mean()) for x, y in scaled]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_what_is_held_out_is_not_learnt_from() -> None:
    series, model, fresh = far_off(60), regressor(), regressor()
    spoilt = [Series(inputs=each.inputs.clone(), targets=each.targets.clone()) for each in series]
    spoilt[0].targets[48:] = math.inf
    clean, other = regression(series), regression(spoilt)
    assert [clean.loss(model).item() for _ in range(4)] == [other.loss(fresh).item() for _ in range(4)]


@pytest.mark.parametrize("ripple", [0.0, 1e-3])
def test_a_column_that_is_constant_in_float32_is_left_near_zero(ripple: float) -> None:
    column = 1e6 + ripple * torch.randn(1000, 1, dtype=torch.float64)
    scale = Scale.of(column)
    assert scale.std.item() == 1
    assert scale.standardized(column).abs().max() < 0.01


def test_series_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="raise --heldout-fraction"):
        regression(far_off(30), heldout_fraction=0.0)
    with pytest.raises(ValueError, match="too few for 1 rows of 12"):
        regression(far_off(11))
