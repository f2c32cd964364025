"""A trained model forecasts nearly as well as the Kalman filter, step by step as it is served."""

import numpy as np
import pytest
import torch

from recipes.oscillator import train
from recipes.oscillator.series import Numbers, Oscillator
from ssp_runtime.formats import artifact
from ssp_runtime.models.model import SequenceRegressor

FRESH = Oscillator().sample(3000, seed=77)


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> SequenceRegressor:
    trained = tmp_path_factory.mktemp("oscillator")
    train.main(train.Flags(out=trained, progress=False))
    return artifact.convert(artifact.load(trained), trained / "recurrent").sequence_regressor


@torch.no_grad()
def stepped(model: SequenceRegressor, series: Numbers) -> Numbers:
    state, forecasts = model.initial_state(1), []
    for value in torch.from_numpy(series).float():
        y, state = model.step(value.view(1, 1), state, out=state)
        forecasts.append(y.item())
    return np.array(forecasts)


def test_it_errs_hardly_more_than_the_best_there_is(forecaster: SequenceRegressor) -> None:
    error = rmse(stepped(forecaster, FRESH)[:-1], FRESH[1:])
    assert error < 1.04 * rmse(Oscillator().best_forecasts(FRESH)[1:], FRESH[1:])
    assert error < 0.6 * rmse(FRESH[:-1], FRESH[1:])
    assert error < 0.35 * FRESH.std()


def test_the_kalman_filter_leaves_errors_that_cannot_be_forecast() -> None:
    """They are white, and as large as the noise and the filter's own uncertainty make them."""
    oscillator = Oscillator()
    errors = ((FRESH - oscillator.best_forecasts(FRESH)) / oscillator.unit)[500:]
    correlations = [np.corrcoef(errors[lag:], errors[:-lag])[0, 1] for lag in (1, 2, 3, 6, 12)]
    assert np.abs(correlations).max() < 4 / np.sqrt(len(errors))
    assert oscillator.noise < errors.std() < oscillator.noise + 2 * oscillator.kick


def rmse(forecasts: Numbers, values: Numbers) -> float:
    return float(np.sqrt(np.mean((forecasts - values) ** 2)))
