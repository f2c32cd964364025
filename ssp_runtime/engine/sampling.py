"""The next token, as a pure function of logits, parameters, the recent tokens, the seed and the position."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssp_runtime.engine.sampling_params import SamplingParams

_GOLDEN, _LAST_SHIFT, _UNUSED_BITS = np.uint64(0x9E3779B97F4A7C15), np.uint64(31), np.uint64(11)
_MIXING = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_PIECE = 2**16  # logits drawn from at once on a CPU: they stay in its cache
_COLDEST = 1e-300  # temperature; below it 1 / temperature is infinite


class Draw(NamedTuple):
    """What one row's draw depends on besides its logits. `forbidden` are ids that may not come yet."""

    params: SamplingParams
    position: int
    recent: Sequence[int] = ()
    recent_generated: Sequence[int] = ()
    forbidden: Sequence[int] = ()


def sample(logits_RV: Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token id a row. Rows do not influence each other.

    Args:
        logits_RV: (rows, vocabulary), float; changed in place for rows with penalties or biases.
        draws: one a row.
    """
    logits_RV = logits_RV.float()
    for r, draw in enumerate(draws):
        if draw.params.changes_logits:
            _adjust(logits_RV[r], draw)
    return Sampler([draw.params for draw in draws])(logits_RV, [draw.position for draw in draws])


class Sampler:
    """Draws for the same rows again and again; what their parameters mean is worked out once. Without penalties and
    biases."""

    def __init__(self, params: Sequence[SamplingParams]) -> None:
        self._params = params
        self._all_greedy = all(each.greedy for each in params)

    def __call__(self, logits_RV: Tensor, positions: Sequence[int]) -> list[int]:
        """One token id a row, for a token at each row's position."""
        logits_RV = logits_RV.float()
        tokens: list[int] = _likeliest(logits_RV).tolist()
        if self._all_greedy:
            return tokens
        at_once = max(1, _PIECE // logits_RV.shape[1]) if logits_RV.device.type == "cpu" else len(tokens)
        for first in range(0, len(tokens), at_once):
            rows = range(first, min(first + at_once, len(tokens)))
            if not all(self._params[r].greedy for r in rows):
                drawn = self._drawn(logits_RV[first : rows.stop], rows, positions)
                for r in rows:
                    tokens[r] = tokens[r] if self._params[r].greedy else drawn[r - first]
        return tokens

    def _drawn(self, logits_RV: Tensor, rows: range, positions: Sequence[int]) -> list[int]:
        """Filters, then the inverse of the cumulative distribution in the order of the ids."""
        weights_RV = logits_RV.double()
        weights_RV -= weights_RV.amax(-1, keepdim=True)
        weights_RV *= _column(weights_RV, self._factors[rows.start : rows.stop])
        weights_RV.exp_()
        if filtered := [r for r in rows if self._params[r].filters]:
            at = [r - rows.start for r in filtered]
            weights_RV[at] = _filtered(weights_RV[at], [self._params[r] for r in filtered])
        cumulative_RV = weights_RV.cumsum_(-1)
        u_R1 = _column(weights_RV, uniform(self._seeds[rows.start : rows.stop], positions[rows.start : rows.stop]))
        return list(torch.searchsorted(cumulative_RV, u_R1 * cumulative_RV[:, -1:], right=True)[:, 0].tolist())

    @cached_property
    def _factors(self) -> npt.NDArray[np.float64]:
        return np.array([1 / max(each.temperature, _COLDEST) for each in self._params])

    @cached_property
    def _seeds(self) -> npt.NDArray[np.uint64]:
        return np.array([each.seed for each in self._params], dtype=np.uint64)


def uniform(seeds: Sequence[int] | npt.NDArray[np.uint64], positions: Sequence[int]) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) that depend on (seed, position) alone: SplitMix64 (Steele, Lea and Flood, 2014) as a
    counter-based generator, its stream chosen by the seed and its counter the position."""
    stream = _mix(np.array(seeds, dtype=np.uint64) + _GOLDEN)
    bits = _mix(stream + _GOLDEN * np.array(positions, dtype=np.uint64))
    return np.asarray((bits >> _UNUSED_BITS).astype(np.float64) * 2.0**-53)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    for shift, factor in _MIXING:
        z = (z ^ (z >> shift)) * factor
    return z ^ (z >> _LAST_SHIFT)


def _adjust(row_V: Tensor, draw: Draw) -> None:
    params = draw.params
    if params.repetition_penalty != 1 and draw.recent:
        seen = torch.tensor(sorted(set(draw.recent)), device=row_V.device)
        scores = row_V[seen]
        row_V[seen] = torch.where(scores > 0, scores / params.repetition_penalty, scores * params.repetition_penalty)
    if draw.recent_generated and (params.presence_penalty or params.frequency_penalty):
        counts = Counter(draw.recent_generated)
        seen = torch.tensor(list(counts), device=row_V.device)
        times = torch.tensor(list(counts.values()), dtype=row_V.dtype, device=row_V.device)
        row_V[seen] -= params.presence_penalty + params.frequency_penalty * times
    if params.logit_bias:
        biases = torch.tensor(list(params.logit_bias.values()), dtype=row_V.dtype, device=row_V.device)
        row_V[list(params.logit_bias)] += biases
    if draw.forbidden:
        row_V[list(draw.forbidden)] = -torch.inf


def _filtered(weights_RV: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Zero where top_k, top_p or min_p lets no token through; of equally likely ones the lower ids pass first. The
    likeliest of each row weighs 1."""
    ordered_RV = _descending(weights_RV)
    mass_RV = ordered_RV.cumsum(-1)
    passes_RV = mass_RV - ordered_RV < _column(weights_RV, [p.top_p for p in params]) * mass_RV[:, -1:]
    passes_RV &= ordered_RV >= _column(weights_RV, [p.min_p for p in params])
    top_k = _column(weights_RV, [p.top_k or weights_RV.shape[1] for p in params]).long()
    count_R1 = passes_RV.sum(-1, keepdim=True).minimum(top_k).clamp(min=1)  # none passes in a row of NaN
    last_R1 = ordered_RV.gather(-1, count_R1 - 1)
    likelier_RV, equal_RV = weights_RV > last_R1, weights_RV == last_R1
    equal_RV &= equal_RV.cumsum(-1) <= count_R1 - likelier_RV.sum(-1, keepdim=True)
    return weights_RV * (likelier_RV | equal_RV)


def _column(like: Tensor, values: Sequence[float] | npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64)[:, None]).to(like.device)


# On a CPU NumPy searches and sorts rows ten times as fast as torch.


def _likeliest(logits_RV: Tensor) -> Tensor:
    if logits_RV.device.type != "cpu":
        return logits_RV.argmax(-1)
    return torch.from_numpy(logits_RV.numpy().argmax(-1))


def _descending(weights_RV: Tensor) -> Tensor:
    if weights_RV.device.type != "cpu":
        return weights_RV.sort(dim=-1, descending=True).values
    return torch.from_numpy(-np.sort(-weights_RV.numpy()))
