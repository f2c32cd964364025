"""A running generation, as an iterator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import grpc

from ssp_client.calls import Call
from ssp_client.cursor import Cursor, Turn
from ssp_client.delivery import Delivery
from ssp_client.errors import SSPError
from ssp_client.transport import Transport
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
        cursor: Cursor | None = None,
    ) -> None:
        self._transport, self._call, self._timeout = transport, call, timeout
        self._delivery, self._turn = Delivery(retries=1 if cursor else 0), Turn(cursor)
        self._closed = False
        self._messages = transport.stream(call, timeout)

    def __next__(self) -> GenerateChunk:
        while not self._closed:
            chunk = self._receive()
            if chunk and (fresh := self._delivery.fresh(chunk)):
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
            chunk = self._call.parse(next(self._messages))
        except StopIteration:
            self.close()
            return None
        except grpc.RpcError as error:
            self._recover(self._transport.exception(error), error)
            return None
        self._turn.chunk(chunk)
        return chunk

    def _recover(self, failure: SSPError, error: grpc.RpcError) -> None:
        if self._closed:  # by another thread, which ended the call
            return
        pause = self._delivery.retry(failure)
        if pause is None:
            self._closed = True
            self._turn.failed(failure)
            raise failure from error
        time.sleep(pause)
        self._messages = self._transport.stream(self._call, self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_messages"):
            self.close()
