"""A session that is fed bit by bit, each bit answered by the model's outputs, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, TypeVar

import grpc.aio

from ssp_client.aio.transport import AsyncTransport
from ssp_client.errors import Internal
from ssp_client.steps import Steps
from ssp_client.types import SequenceLike

T = TypeVar("T")


class AsyncStepStream(AsyncIterator[T]):
    """A running Step call, made by `AsyncSession.step`; what `StepStream` says holds here, with tasks for threads."""

    def __init__(self, transport: AsyncTransport, steps: Steps[T], *, timeout: float | None) -> None:
        self._transport, self._steps = transport, steps
        self._ended = self._closed = False
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._outgoing.put_nowait(steps.call.body)
        self._running = transport.exchange(steps.call, _each(self._outgoing), timeout)
        self._messages = aiter(self._running)

    async def send(self, sequence: SequenceLike) -> T:
        """Folds tokens or vectors in and waits for the outputs, one row for each."""
        if self._steps.num_unanswered:
            raise ValueError("send waits for its own answer; take those of what was put before")
        self.put(sequence)
        async for answer in self:
            return answer
        raise Internal("the server ended the stream before it had answered all")

    def put(self, sequence: SequenceLike) -> None:
        """Folds tokens or vectors in, without waiting."""
        if self._ended or self._closed:
            raise ValueError("the stream has ended; open another")
        self._outgoing.put_nowait(self._steps.put(sequence))

    def end(self) -> None:
        """Nothing more will be put."""
        self._ended = True
        self._outgoing.put_nowait(None)

    def close(self) -> None:
        """Cancels the call unless it has ended."""
        if self._closed:
            return
        self._closed = True
        self._running.cancel()
        self._steps.cut()

    async def __anext__(self) -> T:
        while not self._closed:
            answer = await self._receive()
            if answer is not None:
                return answer
        raise StopAsyncIteration

    async def _receive(self) -> T | None:
        try:
            return self._steps.take(await anext(self._messages))
        except StopAsyncIteration:
            self._closed = True
            return None
        except grpc.aio.AioRpcError as error:
            self._closed = True
            failure = self._transport.exception(error)
            self._steps.failed(failure)
            raise failure from error
        except asyncio.CancelledError:
            if self._closed:  # by another task
                return None
            self.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.end()
                async for _ in self:
                    pass
        finally:
            self.close()

    def __del__(self) -> None:
        if hasattr(self, "_messages"):
            with contextlib.suppress(RuntimeError):  # the event loop is gone, and the call with it
                self.close()


async def _each(bodies: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (body := await bodies.get()) is not None:
        yield body
