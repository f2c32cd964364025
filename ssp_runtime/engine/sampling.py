"""The next token, as a pure function of logits, parameters, the recent tokens, the seed and the position."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssp_runtime.engine.sampling_params import SamplingParams

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Draw:
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
    for row, draw in zip(logits_RV, draws, strict=True):
        if draw.params.changes_logits:
            _adjust(row, draw)
    ids = logits_RV.argmax(dim=-1)
    drawn = [r for r, draw in enumerate(draws) if not draw.params.greedy]
    if drawn:
        ids[drawn] = _draw(logits_RV[drawn], [draws[r] for r in drawn])
    result: list[int] = ids.tolist()
    return result


def uniform(seeds: Sequence[int], positions: Sequence[int]) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) that depend on (seed, position) alone: SplitMix64 (Steele, Lea and Flood, 2014) as a
    counter-based generator, its stream chosen by the seed and its counter the position."""
    with np.errstate(over="ignore"):
        stream = _mix(np.array(seeds, dtype=np.uint64) + _GOLDEN)
        bits = _mix(stream + _GOLDEN * np.array(positions, dtype=np.uint64))
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


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
    for token, bias in params.logit_bias.items():
        row_V[token] += bias
    if draw.forbidden:
        row_V[list(draw.forbidden)] = -torch.inf


def _draw(logits_RV: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Filters, then the inverse of the cumulative distribution, most likely token first."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_RV.device)[:, None]

    temperature = column([draw.params.temperature for draw in draws])
    ordered_RV, ids_RV = (logits_RV.double() / temperature).sort(dim=-1, descending=True, stable=True)
    probabilities_RV = ordered_RV.softmax(dim=-1)
    rank_V = torch.arange(logits_RV.shape[1], device=logits_RV.device)
    top_k = column([draw.params.top_k or logits_RV.shape[1] for draw in draws])
    before_RV = probabilities_RV.cumsum(dim=-1) - probabilities_RV
    keep = (rank_V < top_k) & (before_RV < column([draw.params.top_p for draw in draws]))
    keep &= probabilities_RV >= column([draw.params.min_p for draw in draws]) * probabilities_RV[:, :1]
    kept_RV = torch.where(keep, probabilities_RV, 0).cumsum(dim=-1)
    u = torch.from_numpy(uniform([draw.params.seed for draw in draws], [draw.position for draw in draws]))
    target = u.to(logits_RV.device)[:, None] * kept_RV[:, -1:]
    chosen = torch.searchsorted(kept_RV, target, right=True).clamp(max=logits_RV.shape[1] - 1)
    return ids_RV.gather(1, chosen)[:, 0]
