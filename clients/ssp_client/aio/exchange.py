"""A stream of sequences to a server and of outcomes back, taken up again when it breaks, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc.aio

from ssp_client import calls
from ssp_client.aio.transport import AsyncTransport
from ssp_client.batching import Batch, Outcome
from ssp_client.delivery import Pauses
from ssp_client.errors import Internal, SSPError
from ssp_client.window import Window


class AsyncExchange:
    """One ClassifyMany call at a time; as `Exchange`."""

    def __init__(self, transport: AsyncTransport, window: Window, *, model: str, timeout: float | None) -> None:
        self._transport, self._window, self._timeout = transport, window, timeout
        self._call, self._model = calls.classify_many(), model
        self._pauses, self._is_sent = Pauses(), False
        self._start()

    def send(self, batch: Batch) -> None:
        """It does not wait."""
        self._outgoing.put_nowait(calls.classify_many_body(batch, model=self._model))

    def send_no_more(self) -> None:
        """That was all."""
        self._is_sent = True
        self._outgoing.put_nowait(None)

    async def receive(self) -> dict[int, Outcome]:
        """Waits for the outcomes of a batch, by number."""
        while True:
            try:
                message = await anext(self._messages)
            except grpc.aio.AioRpcError as error:
                await self._recover(self._transport.exception(error), error)
            except StopAsyncIteration:
                raise Internal("the server ended the stream before it had answered all") from None
            else:
                self._pauses.reset()
                return self._call.parse(message)

    async def end(self) -> None:
        """Waits until the server, which has answered all, closes the call."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in self._messages:
                pass

    def close(self) -> None:
        """Cancels the call unless it has ended."""
        self._running.cancel()

    def _start(self) -> None:
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._running = self._transport.exchange(self._call, _each(self._outgoing), self._timeout)
        self._messages = aiter(self._running)
        for batch in self._window.unanswered:
            self.send(batch)
        if self._is_sent:
            self._outgoing.put_nowait(None)

    async def _recover(self, failure: SSPError, error: grpc.aio.AioRpcError) -> None:
        pause = self._pauses.before_retry(failure)
        if pause is None:
            raise failure from error
        await asyncio.sleep(pause)
        self._start()


async def _each(bodies: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (body := await bodies.get()) is not None:
        yield body
