"""A running generation, as an asynchronous iterator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc.aio

from ssp_client.aio.transport import AsyncTransport
from ssp_client.calls import Call
from ssp_client.cursor import Cursor, Turn
from ssp_client.delivery import Delivery
from ssp_client.errors import SSPError
from ssp_client.types import GenerateChunk


class AsyncGenerateStream(AsyncIterator[GenerateChunk]):
    """The chunks of a Generate call, as they come.

    The call is cancelled, and the server stops computing, when the stream is closed, garbage collected, or left
    through the end of its `async with` block, and when the task that awaits it is cancelled.
    """

    def __init__(
        self,
        transport: AsyncTransport,
        call: Call[GenerateChunk],
        *,
        timeout: float | None,
        cursor: Cursor | None = None,
    ) -> None:
        self._transport, self._call, self._timeout = transport, call, timeout
        self._delivery, self._turn = Delivery(retries=1 if cursor else 0), Turn(cursor)
        self._closed = False
        self._start()

    async def __anext__(self) -> GenerateChunk:
        while not self._closed:
            chunk = await self._receive()
            if chunk and (fresh := self._delivery.fresh(chunk)):
                return fresh
        raise StopAsyncIteration

    def close(self) -> None:
        """Cancels the call unless it has ended; further steps stop at once."""
        if self._closed:
            return
        self._closed = True
        self._running.cancel()
        self._turn.ended()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self.close()

    def _start(self) -> None:
        self._running = self._transport.stream(self._call, self._timeout)
        self._messages = self._running.__aiter__()

    async def _receive(self) -> GenerateChunk | None:
        try:
            chunk = self._call.parse(await anext(self._messages))
        except StopAsyncIteration:
            self.close()
            return None
        except grpc.aio.AioRpcError as error:
            await self._recover(self._transport.exception(error), error)
            return None
        except asyncio.CancelledError:
            if self._closed:  # by another task, which ended the call
                return None
            self.close()
            raise
        self._turn.chunk(chunk)
        return chunk

    async def _recover(self, failure: SSPError, error: grpc.aio.AioRpcError) -> None:
        pause = self._delivery.retry(failure)
        if pause is None:
            self._closed = True
            self._turn.failed(failure)
            raise failure from error
        await asyncio.sleep(pause)
        self._start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_messages"):
            with contextlib.suppress(RuntimeError):  # the event loop is gone, and the call with it
                self.close()
