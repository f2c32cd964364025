"""Classifies any number of sequences on one stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ssp_client.batching import Batch, Batcher, Budget, Outcome
from ssp_client.errors import InvalidSequence
from ssp_client.exchange import Exchange
from ssp_client.transport import Transport
from ssp_client.types import SequenceLike
from ssp_client.window import Window


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """One model on one connection."""

    transport: Transport
    model: str
    budget: Budget
    # Sequences that may be under way.
    look_ahead: int
    timeout: float | None
    # Give refused sequences as outcomes instead of raising the first.
    return_exceptions: bool

    def outcomes(self, sequences: Iterable[SequenceLike]) -> Iterator[Outcome]:
        """One outcome per sequence, in order."""
        window = Window(self.look_ahead, return_exceptions=self.return_exceptions)
        exchange = Exchange(self.transport, window, model=self.model, timeout=self.timeout)
        try:
            for item in self._batches(sequences):
                if isinstance(item, Batch):
                    window.send(item)
                    exchange.send(item)
                else:
                    window.answer({item.index: item})
                yield from window.take()
                while window.is_full:
                    window.answer(exchange.receive())
                    yield from window.take()
            exchange.send_no_more()
            while window.unanswered:
                window.answer(exchange.receive())
                yield from window.take()
            exchange.end()
        finally:
            exchange.close()

    def _batches(self, sequences: Iterable[SequenceLike]) -> Iterator[Batch | InvalidSequence]:
        batcher = Batcher(self.budget)
        for sequence in sequences:
            yield from batcher.add(sequence)
        yield from batcher.flush()
