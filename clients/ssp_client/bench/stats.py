"""Statistics of a benchmark; pure, times in seconds.

TTFT is the first token's arrival minus the request's departure. TPOT of a request is (latency - TTFT) / (tokens - 1).
ITL pools the gaps between tokens of all requests: a chunk of k tokens that arrives g after the one before it counts
as k gaps of g / k. The tokens that come with a request's first one have no gap of their own and count as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OBJECTIVES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One finished request as the client saw it."""

    # When it was sent, on the clock of `arrivals`.
    start: float
    # When each chunk came, and how many tokens it brought (at least one).
    arrivals: tuple[float, ...]
    tokens: tuple[int, ...]
    prompt_tokens: int = 0

    @property
    def completion_tokens(self) -> int:
        """Tokens generated."""
        return sum(self.tokens)

    @property
    def ttft(self) -> float:
        """Time to the first token."""
        return self.arrivals[0] - self.start

    @property
    def latency(self) -> float:
        """Time to the last token."""
        return self.arrivals[-1] - self.start

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None for a single token."""
        return (self.latency - self.ttft) / (self.completion_tokens - 1) if self.completion_tokens > 1 else None

    def gaps(self) -> list[float]:
        """Inter-token latencies."""
        pieces = zip(self.arrivals, self.arrivals[1:], self.tokens[1:], strict=False)
        return [(after - before) / count for before, after, count in pieces for _ in range(count)]

    def meets(self, objectives: Mapping[str, float]) -> bool:
        """Whether it kept every objective; the names are those of `OBJECTIVES`, the values seconds."""
        measured = {"ttft": self.ttft, "tpot": self.tpot or 0.0, "e2e": self.latency}
        return all(measured[name] <= limit for name, limit in objectives.items())


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A distribution in six numbers; percentiles are interpolated linearly."""

    count: int
    mean: float
    median: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """All zero for no values."""
        if not len(values):
            return cls(count=0, mean=0.0, median=0.0, p90=0.0, p99=0.0, max=0.0)
        median, p90, p99, highest = (float(q) for q in np.percentile(values, (50, 90, 99, 100)))
        return cls(count=len(values), mean=float(np.mean(values)), median=median, p90=p90, p99=p99, max=highest)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run of many requests came to; times in seconds."""

    duration: float
    completed: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    requests_per_second: float
    output_tokens_per_second: float
    # Requests per second that met every objective; None without objectives.
    goodput: float | None
    ttft: Summary
    tpot: Summary
    itl: Summary
    e2e: Summary

    @classmethod
    def of(
        cls, requests: Sequence[Request], *, duration: float, failed: int, objectives: Mapping[str, float]
    ) -> Report:
        """Of the requests that finished within `duration` seconds, and the number that failed."""
        good = sum(request.meets(objectives) for request in requests)
        tokens = sum(request.completion_tokens for request in requests)
        return cls(
            duration=duration,
            completed=len(requests),
            failed=failed,
            prompt_tokens=sum(request.prompt_tokens for request in requests),
            completion_tokens=tokens,
            requests_per_second=len(requests) / duration,
            output_tokens_per_second=tokens / duration,
            goodput=good / duration if objectives else None,
            ttft=Summary.of([request.ttft for request in requests]),
            tpot=Summary.of([request.tpot for request in requests if request.tpot is not None]),
            itl=Summary.of([gap for request in requests for gap in request.gaps()]),
            e2e=Summary.of([request.latency for request in requests]),
        )


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Positions from `start` up to `stop`, and the median time of a token there, in seconds."""

    start: int
    stop: int
    seconds_per_token: float


def buckets(positions: Sequence[float], seconds_per_token: Sequence[float], count: int) -> list[Bucket]:
    """Cuts the range of positions into `count` equal parts; parts without a measurement are left out."""
    where, times = np.asarray(positions, float), np.asarray(seconds_per_token, float)
    edges = np.linspace(where.min(), where.max(), count + 1)
    index = np.clip(np.searchsorted(edges, where, side="right") - 1, 0, count - 1)
    return [
        Bucket(start=int(edges[n]), stop=int(edges[n + 1]), seconds_per_token=float(np.median(times[index == n])))
        for n in range(count)
        if (index == n).any()
    ]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line of least squares; 0 when all x are equal."""
    dx, dy = np.asarray(x, float) - np.mean(x), np.asarray(y, float) - np.mean(y)
    spread = float(dx @ dx)
    return float(dx @ dy) / spread if spread else 0.0


def parse_objectives(texts: Sequence[str]) -> dict[str, float]:
    """Reads `ttft:200 tpot:20` (milliseconds) as seconds.

    Raises:
        ValueError: another name, or no positive number.
    """
    objectives = {}
    for text in texts:
        name, _, number = text.partition(":")
        if name not in OBJECTIVES:
            raise ValueError(
                f"{text!r} is no objective; write {', '.join(OBJECTIVES)} and milliseconds, as in ttft:200"
            )
        objectives[name] = _milliseconds(text, number)
    return objectives


def _milliseconds(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ValueError(f"{text!r} has no positive number of milliseconds after its colon; for example ttft:200")
    return value / 1000
