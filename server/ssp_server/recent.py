"""What happened in the last seconds, for who chooses between servers now."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

SECONDS = 5


class Recent:
    """Amounts of the last five seconds, in a bucket a second. One thread adds, any reads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets = [(-SECONDS, 0.0, 0)] * SECONDS  # (second, sum, count), replaced whole

    def add(self, amount: float) -> None:
        second = int(self._clock())
        kept, total, count = self._buckets[second % SECONDS]
        fresh = (second, total + amount, count + 1) if kept == second else (second, amount, 1)
        self._buckets[second % SECONDS] = fresh

    @property
    def per_second(self) -> float:
        total, _ = self._totals()
        return total / (SECONDS - 1 + self._clock() % 1)

    @property
    def mean(self) -> float:
        """Of the amounts; 0 if there were none."""
        total, count = self._totals()
        return total / count if count else 0.0

    def _totals(self) -> tuple[float, int]:
        oldest = int(self._clock()) - SECONDS + 1
        buckets = [bucket for bucket in self._buckets if bucket[0] >= oldest]
        return sum(total for _, total, _ in buckets), sum(count for _, _, count in buckets)


@dataclass(frozen=True)
class Load:
    """How busy one model was: tokens that it made or read, and seconds that calls waited."""

    tokens: Recent = field(default_factory=Recent)
    queue: Recent = field(default_factory=Recent)
