"""Many sequences on one stream: read while there is room for more, answered as they are finished."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from ssp.v1 import classification_pb2
from ssp_runtime.engine.batch_runner import BatchRunner
from ssp_runtime.errors import Exhausted, InvalidRequest
from ssp_runtime.models.batching import Row
from ssp_server.registry import Registry
from ssp_server.services.predictions import class_names, prediction
from ssp_server.services.rows import read_row

Request = classification_pb2.ClassifyManyRequest
Response = classification_pb2.ClassifyManyResponse

# What one stream may have under way before it is read on.
MAX_SEQUENCES = 4096
MAX_TOKENS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The sequences of one request. In the place of one that cannot be classified stands why."""

    indices: Sequence[int]
    rows: Sequence[Row | str]

    @property
    def good(self) -> list[Row]:
        return [row for row in self.rows if not isinstance(row, str)]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.good))


class Stream:
    """One call. What goes wrong with it is told when all that it has read is answered, unless the server failed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._model = ""
        self._sequences = self._tokens = 0  # from reading to sending
        self._has_room = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()
        self._answers: asyncio.Queue[tuple[Batch, Response] | Exception | None] = asyncio.Queue()  # None: no more

    async def responses(self, requests: AsyncIterator[Request]) -> AsyncIterator[Response]:
        reading = asyncio.create_task(self._read(requests))
        try:
            while (answer := await self._answers.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                batch, response = answer
                yield response
                self._count(batch, -1)
        finally:
            for task in (reading, *self._answering):
                task.cancel()
            await asyncio.gather(reading, *self._answering, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        end = None
        try:
            async for request in requests:
                self._begin(request)
                await self._has_room.wait()
        except Exception as error:  # raised again in `responses`, where the call is answered
            end = error
        await asyncio.gather(*self._answering)
        self._answers.put_nowait(end)

    def _begin(self, request: Request) -> None:
        classifier = self._registry.classifier(self._model or request.model)
        self._model = classifier.name
        rows = [_row_or_error(sequence, classifier) for sequence in request.sequences]
        batch = Batch(indices=[sequence.index for sequence in request.sequences], rows=rows)
        self._count(batch, 1)
        task = asyncio.create_task(self._answer(batch, classifier))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _count(self, batch: Batch, sign: int) -> None:
        self._sequences += sign * len(batch.rows)
        self._tokens += sign * batch.num_tokens
        if self._sequences < MAX_SEQUENCES and self._tokens < MAX_TOKENS:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def _answer(self, batch: Batch, classifier: BatchRunner) -> None:
        try:
            logits = await _logits(batch.good, classifier)
            self._answers.put_nowait((batch, _response(batch, logits, classifier)))
        except Exception as error:  # as in `_read`
            self._answers.put_nowait(error)


def _row_or_error(sequence: classification_pb2.IndexedSequence, classifier: BatchRunner) -> Row | str:
    try:
        return read_row(sequence.input, classifier)
    except InvalidRequest as error:
        return str(error)


async def _logits(rows: list[Row], classifier: BatchRunner) -> list[np.ndarray]:
    """Waits for its turn if too many sequences of others wait already."""
    while rows:
        try:
            return await asyncio.wrap_future(classifier.submit(rows))
        except Exhausted as error:
            await asyncio.sleep(error.retry_after)
    return []


def _response(batch: Batch, logits: list[np.ndarray], classifier: BatchRunner) -> Response:
    labels, scores, results = class_names(classifier), iter(logits), []
    for index, row in zip(batch.indices, batch.rows, strict=True):
        result = classification_pb2.IndexedResult(index=index)
        if isinstance(row, str):
            result.error = row
        else:
            result.prediction.CopyFrom(prediction(row, next(scores), labels))
        results.append(result)
    return Response(labels=labels, results=results)
