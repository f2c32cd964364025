"""Sequences on their way to a server and back: in order, and not too many at once; no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ssp_client.batching import Batch, Outcome
from ssp_client.errors import InvalidSequence

LOOK_AHEAD = 4096
_MAX_BYTES = 64 * 1024 * 1024


class Window:
    """What was read and not given back, at most about `look_ahead` sequences and 64 MiB of them."""

    def __init__(self, look_ahead: int, *, return_exceptions: bool) -> None:
        self._look_ahead, self._return_exceptions = look_ahead, return_exceptions
        self._unanswered: dict[int, Batch] = {}  # by the number of the first sequence
        self._outcomes: dict[int, Outcome] = {}  # that wait for earlier ones
        self._next = self._end = self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Nothing more should be read before something is answered."""
        return self._end - self._next >= self._look_ahead or self._bytes >= _MAX_BYTES

    @property
    def unanswered(self) -> Sequence[Batch]:
        """What was sent, oldest first."""
        return tuple(self._unanswered.values())

    def send(self, batch: Batch) -> None:
        """It is on its way."""
        self._unanswered[batch.start] = batch
        self._bytes += batch.num_bytes
        self._end = batch.start + len(batch.inputs)

    def answer(self, outcomes: dict[int, Outcome]) -> None:
        """All of one batch, or one that was never sent, by number."""
        self._outcomes.update(outcomes)
        first = min(outcomes)
        self._end = max(self._end, first + 1)
        if first in self._unanswered:
            self._bytes -= self._unanswered.pop(first).num_bytes

    def take(self) -> Iterator[Outcome]:
        """Those whose turn it is; one that was refused is raised unless they are to be returned."""
        while self._next in self._outcomes:
            outcome = self._outcomes.pop(self._next)
            self._next += 1
            if isinstance(outcome, InvalidSequence) and not self._return_exceptions:
                raise outcome
            yield outcome
