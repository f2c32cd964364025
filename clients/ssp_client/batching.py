"""Cuts any number of sequences into messages; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ssp.v1 import common_pb2
from ssp_client import wire
from ssp_client.errors import InvalidArgument, InvalidSequence
from ssp_client.types import ModelInfo, Prediction, SequenceLike, Task

# Room in a message for what is not sequences, in bytes; and around each sequence: tags, a length, an index.
_ENVELOPE = 1024
_PER_SEQUENCE = 16
_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one message may hold."""

    sequences: int
    message_bytes: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The sequences of one message; the first of them is number `start` of all."""

    start: int
    inputs: tuple[common_pb2.SequenceInput, ...]
    num_bytes: int


Outcome: TypeAlias = Prediction | InvalidSequence


def budget(model: ModelInfo, batch_size: int | None) -> Budget:
    """The model's limits, or less: `batch_size` sequences, by default few enough that answers come early.

    Raises:
        InvalidArgument: the model does not classify, or `batch_size` is not positive.
    """
    if model.task not in (Task.CLASSIFY, Task.UNSPECIFIED):
        raise InvalidArgument(f"model {model.name!r} does not classify; it is made to {model.task}")
    if batch_size is not None and batch_size < 1:
        raise InvalidArgument(f"a batch of {batch_size} sequences is none; batch_size is at least 1")
    most = model.limits.max_batch_sequences or 1
    message_bytes = model.limits.max_message_bytes or 4 * 1024 * 1024
    return Budget(sequences=min(most, batch_size or _BATCH_SIZE), message_bytes=message_bytes - _ENVELOPE)


def check_collection(sequences: object) -> None:
    """Raises TypeError for one text where many sequences are wanted: each of its letters would be one."""
    if isinstance(sequences, str | bytes):
        raise TypeError("this takes many sequences; put a single one into a list")


def choose_classifier(models: Sequence[ModelInfo]) -> ModelInfo:
    """The server's only classifier.

    Raises:
        InvalidArgument: it has none, or several.
    """
    classifiers = [model for model in models if model.task is Task.CLASSIFY]
    if len(classifiers) == 1:
        return classifiers[0]
    if not classifiers:
        raise InvalidArgument("the server has no model that classifies")
    names = ", ".join(model.name for model in classifiers)
    raise InvalidArgument(f"the server has several models that classify; name one of {names}")


class Batcher:
    """Takes sequences one by one and gives batches within a budget, in order."""

    def __init__(self, limits: Budget) -> None:
        self._limits = limits
        self._count = 0
        self._inputs: list[common_pb2.SequenceInput] = []
        self._bytes = 0

    def add(self, sequence: SequenceLike) -> list[Batch | InvalidSequence]:
        """The next sequence; returns what is ready to go: a full batch, or the sequence itself if it cannot be sent."""
        try:
            message = wire.sequence_to_proto(sequence)
            size = self._size(message)
        except (ValueError, TypeError) as error:
            return [*self.flush(), self._reject(error)]
        full = len(self._inputs) == self._limits.sequences or self._bytes + size > self._limits.message_bytes
        ready: list[Batch | InvalidSequence] = [*self.flush()] if full else []
        self._inputs.append(message)
        self._bytes += size
        self._count += 1
        return ready

    def flush(self) -> list[Batch]:
        """What is left, as a last batch."""
        if not self._inputs:
            return []
        batch = Batch(start=self._count - len(self._inputs), inputs=tuple(self._inputs), num_bytes=self._bytes)
        self._inputs, self._bytes = [], 0
        return [batch]

    def _size(self, message: common_pb2.SequenceInput) -> int:
        size = message.ByteSize() + _PER_SEQUENCE
        if size > self._limits.message_bytes:
            raise ValueError(f"it takes {size:,} bytes; the server takes at most {self._limits.message_bytes:,}")
        return size

    def _reject(self, error: Exception) -> InvalidSequence:
        self._count += 1
        return InvalidSequence(str(error), index=self._count - 1)
