"""A session that is fed bit by bit, each bit answered by the model's outputs."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

import grpc

from ssp_client.errors import Internal
from ssp_client.steps import Steps
from ssp_client.transport import Transport
from ssp_client.types import SequenceLike

T = TypeVar("T")


class StepStream(Iterator[T]):
    """A running Step call, made by `Session.step`.

    `send` is for lock-step. To have several inputs under way, `put` them and iterate: the answers come in order, one
    for each input, until `end` was called and all is answered; another thread may put them.

    The end of the with-block waits until all is folded in and the server has committed it; an exception in it cancels
    the call, and the session stays at the last input that was folded in. A lost connection is raised: `Session.info`
    tells from which position to send again.
    """

    def __init__(self, transport: Transport, steps: Steps[T], *, timeout: float | None) -> None:
        self._transport, self._steps = transport, steps
        self._ended = self._closed = False
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._outgoing.put(steps.call.body)
        self._messages = transport.exchange(steps.call, iter(self._outgoing.get, None), timeout)

    def send(self, sequence: SequenceLike) -> T:
        """Folds tokens or vectors in and waits for the outputs, one row for each."""
        if self._steps.num_unanswered:
            raise ValueError("send waits for its own answer; take those of what was put before")
        self.put(sequence)
        for answer in self:
            return answer
        raise Internal("the server ended the stream before it had answered all")

    def put(self, sequence: SequenceLike) -> None:
        """Folds tokens or vectors in, without waiting."""
        if self._ended or self._closed:
            raise ValueError("the stream has ended; open another")
        self._outgoing.put(self._steps.put(sequence))

    def end(self) -> None:
        """Nothing more will be put."""
        self._ended = True
        self._outgoing.put(None)

    def close(self) -> None:
        """Cancels the call unless it has ended."""
        if self._closed:
            return
        self._closed = True
        self._outgoing.put(None)
        self._messages.cancel()
        self._steps.cut()

    def __next__(self) -> T:
        while not self._closed:
            answer = self._receive()
            if answer is not None:
                return answer
        raise StopIteration

    def _receive(self) -> T | None:
        try:
            return self._steps.take(next(self._messages))
        except StopIteration:
            self._closed = True
            return None
        except grpc.RpcError as error:
            if self._closed:  # by another thread
                return None
            self._closed = True
            self._outgoing.put(None)
            failure = self._transport.exception(error)
            self._steps.failed(failure)
            raise failure from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.end()
                collections.deque(self, maxlen=0)
        finally:
            self.close()

    def __del__(self) -> None:
        if hasattr(self, "_messages"):
            self.close()
