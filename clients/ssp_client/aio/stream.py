"""A running generation, as an asynchronous iterator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import grpc.aio

from ssp_client.aio.recovery import AsyncRecovery
from ssp_client.aio.transport import AsyncByteStream, AsyncTransport
from ssp_client.calls import Call
from ssp_client.cursor import Turn
from ssp_client.delivery import Delivery, Pauses
from ssp_client.errors import SSPError
from ssp_client.tries import Tries
from ssp_client.types import GenerateChunk


class AsyncGenerateStream(AsyncIterator[GenerateChunk]):
    """The chunks of a Generate call, as they come.

    The call is cancelled, and the server stops computing, when the stream is closed, garbage collected, or left
    through the end of its `async with` block, and when the task that awaits it is cancelled.
    """

    def __init__(
        self,
        transport: AsyncTransport,
        make_call: Callable[[], Call[GenerateChunk]],
        *,
        timeout: float | None,
        recovery: AsyncRecovery | None = None,
    ) -> None:
        self._transport, self._make_call, self._timeout, self._recovery = transport, make_call, timeout, recovery
        self._delivery = Delivery()
        self._tries: Tries | None = None
        self._pauses = Pauses()
        self._running: AsyncByteStream | None = None
        self._closed = False
        if recovery is None or recovery.cursor.is_settled:
            self._begin()

    async def __anext__(self) -> GenerateChunk:
        try:
            while not self._closed:
                chunk = await self._receive()
                fresh = self._delivery.fresh(chunk) if chunk else None
                if fresh:
                    self._tries = None
                    self._turn.chunk(fresh)
                    return fresh
        except asyncio.CancelledError:
            if not self._closed:  # by another task, which ended the call
                self.close()
                raise
        raise StopAsyncIteration

    def close(self) -> None:
        """Cancels the call unless it has ended; further steps stop at once."""
        if self._closed:
            return
        self._closed = True
        if self._running is not None:
            self._running.cancel()
            self._turn.ended()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self.close()

    def _begin(self) -> None:
        call = self._make_call()
        self._turn = Turn(call, self._recovery.cursor if self._recovery else None)
        self._start(call)

    def _start(self, call: Call[GenerateChunk]) -> None:
        self._parse, self._running = call.parse, self._transport.stream(call, self._timeout)
        self._messages = self._running.__aiter__()

    async def _receive(self) -> GenerateChunk | None:
        if self._running is None:
            assert self._recovery is not None
            await self._recovery.settle()
            self._begin()
        try:
            return self._parse(await anext(self._messages))
        except StopAsyncIteration:
            self.close()
        except grpc.aio.AioRpcError as error:
            await self._take_up(self._transport.exception(error), error)
        return None

    async def _take_up(self, failure: SSPError, error: grpc.aio.AioRpcError) -> None:
        try:
            await self._recover(failure)
        except SSPError as final:
            self._closed = True
            self._turn.failed(final)
            raise final from error
        self._delivery.begin_again()
        self._start(self._turn.again)

    async def _recover(self, failure: SSPError) -> None:
        """Returns when the call may be sent again; raises what is final."""
        if self._recovery is not None and self._turn.can_resume:
            self._tries = self._tries or self._recovery.tries()
            await self._recovery.recover(failure, self._tries)
            return
        pause = None if self._turn.has_begun else self._pauses.before_retry(failure)
        if pause is None:
            raise failure
        await asyncio.sleep(pause)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            with contextlib.suppress(RuntimeError):  # the event loop is gone, and the call with it
                self.close()
