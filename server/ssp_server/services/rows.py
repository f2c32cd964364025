"""Whole sequences in requests."""

import contextlib
from collections.abc import Iterator

from ssp.v1 import common_pb2
from ssp_runtime.engine.batch_runner import BatchRunner
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.models.batching import Row
from ssp_server import wire


def read_row(message: common_pb2.SequenceInput, reader: BatchRunner) -> Row:
    """A sequence that the model takes. Raises `InvalidRequest`."""
    row = wire.row(message, reader.artifact.description.tokenizer)
    reader.check(row)
    return row


@contextlib.contextmanager
def sequence(number: int) -> Iterator[None]:
    """What is wrong in here is wrong with that sequence."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"sequence {number}: {error}") from error
