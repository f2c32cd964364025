"""Classifies any number of sequences on one stream, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass

from ssp_client.aio.exchange import AsyncExchange
from ssp_client.aio.transport import AsyncTransport
from ssp_client.batching import Batch, Batcher, Budget, Outcome
from ssp_client.errors import InvalidSequence
from ssp_client.types import SequenceLike
from ssp_client.window import Window


@dataclass(frozen=True, kw_only=True)
class AsyncClassifier:
    """One model on one connection; the fields are those of `Classifier`."""

    transport: AsyncTransport
    model: str
    budget: Budget
    look_ahead: int
    timeout: float | None
    return_exceptions: bool

    async def outcomes(
        self, sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike]
    ) -> AsyncGenerator[Outcome, None]:
        """One outcome per sequence, in order."""
        window = Window(self.look_ahead, return_exceptions=self.return_exceptions)
        exchange = AsyncExchange(self.transport, window, model=self.model, timeout=self.timeout)
        try:
            async for item in self._batches(sequences):
                if isinstance(item, Batch):
                    window.send(item)
                    exchange.send(item)
                else:
                    window.answer({item.index: item})
                for outcome in window.take():
                    yield outcome
                while window.is_full:
                    window.answer(await exchange.receive())
                    for outcome in window.take():
                        yield outcome
            exchange.send_no_more()
            while window.unanswered:
                window.answer(await exchange.receive())
                for outcome in window.take():
                    yield outcome
            await exchange.end()
        finally:
            exchange.close()

    async def _batches(
        self, sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike]
    ) -> AsyncIterator[Batch | InvalidSequence]:
        batcher = Batcher(self.budget)
        async for sequence in _each(sequences):
            for batch in batcher.add(sequence):
                yield batch
        for last in batcher.flush():
            yield last


async def _each(sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike]) -> AsyncIterator[SequenceLike]:
    if isinstance(sequences, AsyncIterable):
        async for sequence in sequences:
            yield sequence
    else:
        for sequence in sequences:
            yield sequence
