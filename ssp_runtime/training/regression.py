"""Regression at every step: numbers from numbers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ssp_runtime.models.model import Model, SequenceRegressor
from ssp_runtime.training.scale import Scale, rescale
from ssp_runtime.training.series import Series
from ssp_runtime.training.stream import Stream, outputs_in_pieces
from ssp_runtime.training.tasks import Score, Task

ROWS = 16  # series that are scored side by side


class Regression(Task):
    """Mean squared error over series, each from the initial state. The end of each is held out, and what came before
    it is read first when it is scored.

    The model learns from standardized numbers; `finish` makes it one of the numbers as they are.
    """

    def __init__(self, series: Sequence[Series], *, heldout_fraction: float, batch_size: int, length: int) -> None:
        cuts = [int(len(each) * (1 - heldout_fraction)) for each in series]
        if all(cut == len(each) for cut, each in zip(cuts, series, strict=True)):
            raise ValueError(f"{heldout_fraction:.0%} of series so short is nothing: raise --heldout-fraction")
        learnt = [each.until(cut) for each, cut in zip(series, cuts, strict=True)]
        inputs, targets = torch.cat([each.inputs for each in learnt]), torch.cat([each.targets for each in learnt])
        self._inputs, self._targets = Scale.of(inputs), Scale.of(targets)
        self._series, self._cuts = [self._standardized(each) for each in series], cuts
        self._stream = Stream(
            self._inputs.standardized(inputs),
            self._targets.standardized(targets),
            _begins(cuts),
            batch_size=batch_size,
            length=length,
        )
        self.tokens_per_step = batch_size * length

    def _standardized(self, series: Series) -> Series:
        return Series(
            inputs=self._inputs.standardized(series.inputs), targets=self._targets.standardized(series.targets)
        )

    def loss(self, model: Model) -> Tensor:
        assert isinstance(model, SequenceRegressor)
        return F.mse_loss(*self._stream.advance(model))

    @torch.inference_mode()
    def evaluate(self, model: Model) -> Score:
        """Of a model that is not finished: 0 is perfect, 1 is as good as the targets' mean."""
        assert isinstance(model, SequenceRegressor)
        order = sorted(range(len(self._series)), key=lambda i: -len(self._series[i]))
        batches = [order[first : first + ROWS] for first in range(0, len(order), ROWS)]
        errors = torch.cat([self._heldout_errors(model, batch) for batch in batches])
        return Score(name="normalized RMSE", value=math.sqrt(errors.double().square().mean()))

    def _heldout_errors(self, model: SequenceRegressor, batch: Sequence[int]) -> Tensor:
        """Of series that come longest first (count, O)."""
        series, cuts = [self._series[i] for i in batch], torch.tensor([self._cuts[i] for i in batch])
        lengths = torch.tensor([len(each) for each in series])
        inputs = pad_sequence([each.inputs for each in series], batch_first=True)
        targets = pad_sequence([each.targets for each in series], batch_first=True)
        t_L = torch.arange(inputs.shape[1])
        scored_BL = (t_L >= cuts[:, None]) & (t_L < lengths[:, None])
        pieces = outputs_in_pieces(model, inputs, lengths)
        return torch.cat(
            [(outputs - targets[: len(left), piece])[scored_BL[: len(left), piece]] for piece, left, outputs in pieces]
        )

    def finish(self, model: Model) -> None:
        assert isinstance(model, SequenceRegressor)
        rescale(model, self._inputs, self._targets)

    def state_dict(self) -> dict[str, object]:
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._stream.load_state_dict(state)


def _begins(lengths: Sequence[int]) -> Tensor:
    """Marks the first step of each series, of those one behind the other."""
    return torch.cat([torch.arange(length) == 0 for length in lengths])
