"""Classifies any number of sequences with a few calls in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ssp_client import calls
from ssp_client.batching import Answer, Batch, Batcher, Budget, Outcome, isolate
from ssp_client.errors import InvalidArgument, InvalidSequence
from ssp_client.transport import Pending, Transport
from ssp_client.types import Prediction, SequenceLike


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """One model on one connection."""

    transport: Transport
    model: str
    budget: Budget
    # Calls under way at once.
    in_flight: int
    timeout: float | None
    # Give refused sequences as outcomes instead of raising the first.
    return_exceptions: bool

    def outcomes(self, sequences: Iterable[SequenceLike]) -> Iterator[Outcome]:
        """One outcome per sequence, in order."""
        window: deque[InvalidSequence | tuple[Batch, Pending[tuple[Prediction, ...]]]] = deque()
        try:
            for batch in self._batches(sequences):
                window.append(batch if isinstance(batch, InvalidSequence) else (batch, self._send(batch)))
                if len(window) >= self.in_flight:
                    yield from self._finish(window.popleft())
            while window:
                yield from self._finish(window.popleft())
        finally:
            for item in window:
                if isinstance(item, tuple):
                    item[1].cancel()

    def _batches(self, sequences: Iterable[SequenceLike]) -> Iterator[Batch | InvalidSequence]:
        batcher = Batcher(self.budget)
        for sequence in sequences:
            yield from batcher.add(sequence)
        yield from batcher.flush()

    def _send(self, batch: Batch) -> Pending[tuple[Prediction, ...]]:
        return self.transport.begin(calls.classify(batch.inputs, model=self.model), self.timeout)

    def _finish(self, item: InvalidSequence | tuple[Batch, Pending[tuple[Prediction, ...]]]) -> Iterator[Outcome]:
        for outcome in [item] if isinstance(item, InvalidSequence) else self._resolve(*item):
            if isinstance(outcome, InvalidSequence) and not self.return_exceptions:
                raise outcome
            yield outcome

    def _resolve(self, batch: Batch, pending: Pending[tuple[Prediction, ...]]) -> Iterable[Outcome]:
        answer = _answer(pending)
        if not isinstance(answer, InvalidArgument):
            return answer
        search = isolate(batch, answer, every=self.return_exceptions)
        try:
            half = next(search)
            while True:
                half = search.send(_answer(self._send(half)))
        except StopIteration as found:
            outcomes: list[Outcome] = found.value
            return outcomes


def _answer(pending: Pending[tuple[Prediction, ...]]) -> Answer:
    try:
        return pending.result()
    except InvalidArgument as error:
        return error
