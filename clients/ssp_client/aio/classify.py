"""Classifies any number of sequences with a few calls in flight, for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ssp_client import calls
from ssp_client.aio.transport import AsyncTransport
from ssp_client.batching import Answer, Batch, Batcher, Budget, Outcome, isolate
from ssp_client.errors import InvalidArgument, InvalidSequence
from ssp_client.types import SequenceLike

_InFlight: TypeAlias = InvalidSequence | tuple[Batch, "asyncio.Task[Answer]"]


@dataclass(frozen=True, kw_only=True)
class AsyncClassifier:
    """One model on one connection; the fields are those of `Classifier`."""

    transport: AsyncTransport
    model: str
    budget: Budget
    in_flight: int
    timeout: float | None
    return_exceptions: bool

    async def outcomes(self, sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike]) -> AsyncIterator[Outcome]:
        """One outcome per sequence, in order."""
        window: deque[_InFlight] = deque()
        try:
            async for batch in self._batches(sequences):
                window.append(batch if isinstance(batch, InvalidSequence) else (batch, self._begin(batch)))
                if len(window) >= self.in_flight:
                    for outcome in await self._finish(window.popleft()):
                        yield self._checked(outcome)
            while window:
                for outcome in await self._finish(window.popleft()):
                    yield self._checked(outcome)
        finally:
            for item in window:
                if isinstance(item, tuple):
                    item[1].cancel()

    async def _batches(
        self, sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike]
    ) -> AsyncIterator[Batch | InvalidSequence]:
        batcher = Batcher(self.budget)
        async for sequence in _each(sequences):
            for batch in batcher.add(sequence):
                yield batch
        for last in batcher.flush():
            yield last

    def _begin(self, batch: Batch) -> asyncio.Task[Answer]:
        return asyncio.create_task(self._send(batch))

    async def _send(self, batch: Batch) -> Answer:
        try:
            return await self.transport.unary(calls.classify(batch.inputs, model=self.model), self.timeout)
        except InvalidArgument as error:
            return error

    async def _finish(self, item: _InFlight) -> Iterable[Outcome]:
        if isinstance(item, InvalidSequence):
            return [item]
        batch, task = item
        answer = await task
        if not isinstance(answer, InvalidArgument):
            return answer
        search = isolate(batch, answer, every=self.return_exceptions)
        try:
            half = next(search)
            while True:
                half = search.send(await self._send(half))
        except StopIteration as found:
            outcomes: list[Outcome] = found.value
            return outcomes

    def _checked(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, InvalidSequence) and not self.return_exceptions:
            raise outcome
        return outcome


async def _each(sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike]) -> AsyncIterator[SequenceLike]:
    if isinstance(sequences, AsyncIterable):
        async for sequence in sequences:
            yield sequence
    else:
        for sequence in sequences:
            yield sequence
