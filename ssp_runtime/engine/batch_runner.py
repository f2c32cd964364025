"""Whole sequences of many callers through one model, in batches of like length, in a thread of its own."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch

from ssp_runtime.engine.sampling_params import check_ids
from ssp_runtime.errors import Draining, Exhausted, InvalidRequest
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.models.batching import Row, padded
from ssp_runtime.models.config import NumberEmbeddingConfig, TokenEmbeddingConfig
from ssp_runtime.models.model import WholeSequenceModel


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """A batch holds at most `batch_tokens` tokens, padding included, and `max_rows` rows. `threads` is how many cores
    one operation uses."""

    batch_tokens: int = 16_384
    max_rows: int = 256
    max_input_tokens: int = 1_000_000
    max_batch_sequences: int = 4096
    max_waiting: int = 100_000
    threads: int = 1


Part = Sequence[int] | EllipsisType  # of a row's own outputs: places in them, or all


class _Request:
    def __init__(self, rows: Sequence[Row], parts: Sequence[Part]) -> None:
        self.rows, self.parts = rows, parts
        self.outputs: dict[int, np.ndarray] = {}  # by number of row
        self.future: Future[list[np.ndarray]] = Future()
        self.submitted = time.monotonic()


_Item = tuple[_Request, int]
Measure = Callable[[int, int, float, float], None]  # sequences, tokens, seconds, seconds that the oldest waited


class BatchRunner:
    """`submit` from any thread. Each batch holds the sequence that waits longest, with others of about its length."""

    def __init__(self, name: str, artifact: Artifact, config: BatchConfig, measure: Measure | None = None) -> None:
        self.name, self.artifact, self.config = name, artifact, config
        assert isinstance(artifact.model, WholeSequenceModel)
        self._model, self._measure = artifact.model, measure
        self._device = next(self._model.parameters()).device
        self._queue: list[_Item] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._computing = 0
        self._thread = threading.Thread(target=self._loop, name="batches", daemon=True)

    @property
    def num_waiting(self) -> int:
        """Sequences that are not computed yet."""
        return len(self._queue) + self._computing

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; what waits is refused."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, rows: Sequence[Row], parts: Sequence[Part] | None = None) -> Future[list[np.ndarray]]:
        """What the model will say of each of some rows that `check` lets pass: its outputs for the row, or the part of
        them that is asked for. They do not depend on what else is in the batch.

        Raises:
            InvalidRequest: there are none, or too many.
            Exhausted: too many sequences wait already.
        """
        if not 1 <= len(rows) <= self.config.max_batch_sequences:
            raise InvalidRequest(f"one call takes 1 to {self.config.max_batch_sequences} sequences, not {len(rows)}")
        request = _Request(rows, parts or [...] * len(rows))
        with self._wake:
            if self._stopping:
                raise Draining("the model is being unloaded")
            if len(self._queue) > self.config.max_waiting:
                raise Exhausted(f"{len(self._queue)} sequences wait already; try again later")
            self._queue.extend((request, i) for i in range(len(rows)))
            self._wake.notify()
        return request.future

    def check(self, row: Row) -> None:
        """Raises `InvalidRequest` if the model cannot read it."""
        if not 1 <= len(row) <= self.config.max_input_tokens:
            raise InvalidRequest(f"it must have 1 to {self.config.max_input_tokens} tokens, not {len(row)}")
        embedding = self.artifact.description.model.embedding
        numeric = isinstance(row, np.ndarray)
        if isinstance(embedding, NumberEmbeddingConfig) != numeric:
            raise InvalidRequest(f"it must be {'tokens' if numeric else 'numbers'} for this model")
        if isinstance(row, np.ndarray):
            _check_numbers(row, embedding)
        else:
            assert isinstance(embedding, TokenEmbeddingConfig)
            check_ids(row, embedding.vocab_size)

    def _loop(self) -> None:
        torch.set_num_threads(self.config.threads)
        with torch.inference_mode():
            while batch := self._next_batch():
                self._run(batch)
        for request in {request for request, _ in self._queue}:
            _fail(request, Draining("the model is being unloaded"))

    def _next_batch(self) -> list[_Item]:
        """The oldest waiting sequence and those nearest to it in length that fit into one batch; none when stopping."""
        with self._wake:
            self._computing = 0
            while not self._stopping:
                self._queue = [item for item in self._queue if not item[0].future.done()]
                if self._queue:
                    return self._take()
                self._wake.wait()
            return []

    def _take(self) -> list[_Item]:
        oldest, longest = _length(self._queue[0]), 0
        batch: list[_Item] = []
        for item in sorted(self._queue, key=lambda item: abs(_length(item) - oldest))[: self.config.max_rows]:
            longest = max(longest, _length(item))
            if batch and (len(batch) + 1) * longest > self.config.batch_tokens:
                break
            batch.append(item)
        taken = set(map(id, batch))
        self._queue = [item for item in self._queue if id(item) not in taken]
        self._computing = len(batch)
        return batch

    def _run(self, batch: list[_Item]) -> None:
        started = time.monotonic()
        rows = [request.rows[i] for request, i in batch]
        try:
            outputs = self._model(*padded(rows, self._device))
            for (request, i), output in zip(batch, outputs, strict=True):
                request.outputs[i] = output[request.parts[i]].float().cpu().numpy()
        except Exception as error:  # the callers must hear of it, and the thread must live on
            for request in {request for request, _ in batch}:
                _fail(request, error)
            return
        for request in {request for request, _ in batch}:
            _finish(request)
        if self._measure is not None:
            waited = started - min(request.submitted for request, _ in batch)
            self._measure(len(rows), sum(map(len, rows)), time.monotonic() - started, waited)


def _length(item: _Item) -> int:
    request, i = item
    return len(request.rows[i])


def _finish(request: _Request) -> None:
    """Answers its caller if every row is computed, unless the caller is gone."""
    if len(request.outputs) == len(request.rows) and request.future.set_running_or_notify_cancel():
        request.future.set_result([output for _, output in sorted(request.outputs.items())])


def _check_numbers(row: np.ndarray, embedding: object) -> None:
    assert isinstance(embedding, NumberEmbeddingConfig)
    if row.shape[1:] != (embedding.d_input,):
        raise InvalidRequest(f"it must have vectors of {embedding.d_input} numbers")
    if not np.isfinite(row).all():
        raise InvalidRequest("it holds NaN or infinite numbers")


def _fail(request: _Request, error: Exception) -> None:
    """Tells a request's caller, unless it has been told already or is gone."""
    with contextlib.suppress(InvalidStateError):
        request.future.set_exception(error)
