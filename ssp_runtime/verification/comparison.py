"""Two forms of a language model on the same tokens."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.models.model import LanguageModel
from ssp_runtime.state import State
from ssp_runtime.verification.recorder import recorded

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 2e-2, torch.float16: 2e-2}
_BUCKETS = 4


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Of one piece of text: what every layer brings, (L, D) each, and logits (L, V)."""

    layers: list[Tensor]
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of one layer, or of the logits: the largest at each token, and the largest magnitude there is."""

    per_token: Tensor
    scale: float

    @property
    def largest(self) -> float:
        return float(self.per_token.max())

    def parts_at(self, tolerance: float) -> int | None:
        """The first token where it exceeds a tolerance that is meant for numbers of order 1."""
        beyond = (self.per_token > tolerance * max(1.0, self.scale)) | self.per_token.isnan()
        return int(beyond.nonzero()[0]) if beyond.any() else None


def difference(first: Tensor, second: Tensor) -> Difference:
    """Of (L, ...) and (L, ...)."""
    gap = (first.double() - second.double()).abs()
    return Difference(per_token=gap.flatten(1).amax(1), scale=float(first.abs().max()))


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Of two forms: after each layer, in order, and of the logits; `agree` tells of each row of logits whether the
    likeliest is the same."""

    layers: list[Difference]
    logits: Difference
    agree: Tensor

    def report(self) -> dict[str, object]:
        """What an artifact records."""
        return {
            "tokens": len(self.layers[0].per_token),
            "largest_difference_of_logits": self.logits.largest,
            "largest_logit": self.logits.scale,
            "top1_agreement": float(self.agree.double().mean()),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison(Differences):
    """Of language models, with the bits that each token costs them."""

    parallel_bits: Tensor
    recurrent_bits: Tensor

    def rows(self) -> list[tuple[object, ...]]:
        """By quarters of the text, then the whole."""
        length = len(self.agree)
        edges = [length * i // _BUCKETS for i in range(_BUCKETS + 1)]
        parts = [slice(a, b) for a, b in pairwise(edges) if b > a]
        return [self._row(part) for part in [*parts, slice(0, length)]]

    def _row(self, part: slice) -> tuple[object, ...]:
        values = (self.agree, self.parallel_bits, self.recurrent_bits)
        means = (float(value[part].double().mean()) for value in values)
        return f"{part.start} to {part.stop - 1}", float(self.logits.per_token[part].max()), *means

    def report(self) -> dict[str, object]:
        bits = {"bits_parallel": self.parallel_bits, "bits_recurrent": self.recurrent_bits}
        return {**super().report(), **{name: float(value.double().mean()) for name, value in bits.items()}}


@torch.inference_mode()
def compare(parallel: LanguageModel, recurrent: LanguageModel, ids: list[int], piece: int) -> Comparison:
    """Runs `forward` of one in pieces, and folds `step` of the other over the same tokens."""
    found = _Found()
    first, second = parallel.initial_state(1), recurrent.initial_state(1)
    for start in range(0, len(ids) - 1, piece):
        targets = torch.tensor(ids[start + 1 : start + piece + 1])
        inputs = torch.tensor([ids[start : start + len(targets)]])
        outputs, first = in_parallel(parallel, inputs, first)
        found.add(outputs, step_by_step(recurrent, inputs, second), targets)
    return found.comparison()


def in_parallel(model: LanguageModel, inputs: Tensor, state: State) -> tuple[Outputs, State]:
    with recorded(model) as seen:
        logits, state = model(inputs, state)
    return Outputs(layers=[y[0].float() for y in seen], logits=logits[0].float()), state


def step_by_step(model: LanguageModel, inputs: Tensor, state: State) -> Outputs:
    """The state is advanced in place."""
    rows: list[Tensor] = []
    with recorded(model) as seen:
        for t in range(inputs.shape[1]):
            logits, _ = model.step(inputs[:, t], state, out=state)
            rows.append(logits[0].float())
    count = len(seen) // len(rows)
    layers = [torch.cat(seen[i::count]).float() for i in range(count)]
    return Outputs(layers=layers, logits=torch.stack(rows))


@dataclass
class _Found:
    """Piece by piece."""

    layers: list[list[Difference]] = field(default_factory=list)
    logits: list[Difference] = field(default_factory=list)
    agree: list[Tensor] = field(default_factory=list)
    bits: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, parallel: Outputs, recurrent: Outputs, targets: Tensor) -> None:
        self.layers.append(list(_differences(parallel.layers, recurrent.layers)))
        self.logits.append(difference(parallel.logits, recurrent.logits))
        self.agree.append(parallel.logits.argmax(-1) == recurrent.logits.argmax(-1))
        self.bits.append((_bits(parallel.logits, targets), _bits(recurrent.logits, targets)))

    def comparison(self) -> Comparison:
        first, second = zip(*self.bits, strict=True)
        return Comparison(
            layers=[_joined(pieces) for pieces in zip(*self.layers, strict=True)],
            logits=_joined(self.logits),
            agree=torch.cat(self.agree),
            parallel_bits=torch.cat(first),
            recurrent_bits=torch.cat(second),
        )


def _differences(first: list[Tensor], second: list[Tensor]) -> Iterator[Difference]:
    return (difference(a, b) for a, b in zip(first, second, strict=True))


def _joined(pieces: list[Difference] | tuple[Difference, ...]) -> Difference:
    return Difference(per_token=torch.cat([p.per_token for p in pieces]), scale=max(p.scale for p in pieces))


def _bits(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="none") / math.log(2)
