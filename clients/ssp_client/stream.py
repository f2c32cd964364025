"""A running generation, as an iterator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import grpc

from ssp_client.calls import Call
from ssp_client.cursor import Turn
from ssp_client.delivery import Delivery, Pauses
from ssp_client.errors import SSPError
from ssp_client.recovery import Recovery
from ssp_client.transport import Transport
from ssp_client.tries import Tries
from ssp_client.types import GenerateChunk


class GenerateStream(Iterator[GenerateChunk]):
    """The chunks of a Generate call, as they come.

    The call is cancelled, and the server stops computing, when the stream is closed, garbage collected, or left
    through the end of its with-block. What the server refuses is raised by the first `next`.
    """

    def __init__(
        self,
        transport: Transport,
        call: Call[GenerateChunk],
        *,
        timeout: float | None,
        recovery: Recovery | None = None,
    ) -> None:
        self._transport, self._call, self._timeout, self._recovery = transport, call, timeout, recovery
        self._delivery, self._turn = Delivery(), Turn(call, recovery.cursor if recovery else None)
        self._tries: Tries | None = None  # with a session
        self._pauses = Pauses()  # without one, until something came
        self._closed = False
        self._messages = transport.stream(call, timeout)

    def __next__(self) -> GenerateChunk:
        while not self._closed:
            chunk = self._receive()
            fresh = self._delivery.fresh(chunk) if chunk else None
            if fresh:
                self._tries = None
                self._turn.chunk(fresh)
                return fresh
        raise StopIteration

    def close(self) -> None:
        """Cancels the call unless it has ended; further `next` calls stop at once."""
        if self._closed:
            return
        self._closed = True
        self._messages.cancel()
        self._turn.ended()

    def _receive(self) -> GenerateChunk | None:
        try:
            return self._call.parse(next(self._messages))
        except StopIteration:
            self.close()
        except grpc.RpcError as error:
            if not self._closed:  # by another thread, which ended the call
                self._take_up(self._transport.exception(error), error)
        return None

    def _take_up(self, failure: SSPError, error: grpc.RpcError) -> None:
        try:
            self._recover(failure)
        except SSPError as final:
            self._closed = True
            self._turn.failed(final)
            raise final from error
        self._delivery.begin_again()
        self._messages = self._transport.stream(self._turn.again, self._timeout)

    def _recover(self, failure: SSPError) -> None:
        """Returns when the call may be sent again; raises what is final."""
        if self._recovery is not None and self._turn.can_resume:
            self._tries = self._tries or self._recovery.tries()
            self._recovery.recover(failure, self._tries)
            return
        pause = None if self._turn.has_begun else self._pauses.before_retry(failure)
        if pause is None:
            raise failure
        time.sleep(pause)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_messages"):
            self.close()
