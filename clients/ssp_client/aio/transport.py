"""Carries calls over an asyncio channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cached_property
from typing import Any, Protocol, TypeVar

import grpc.aio

from ssp_client.calls import Call
from ssp_client.channel import Connection
from ssp_client.errors import SSPError
from ssp_client.status import to_exception

T = TypeVar("T")


class AsyncByteStream(Protocol):
    """A running call."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def cancel(self) -> bool: ...


class AsyncTransport:
    """One connection, of the event loop that makes the first call; the arguments are those of `Transport`."""

    def __init__(self, connection: Connection, timeout: float | None, recovery_seconds: float) -> None:
        self.target, self.recovery_seconds = connection.target, recovery_seconds
        self._connection = connection
        self._timeout = timeout

    async def unary(self, call: Call[T], timeout: float | None = None) -> T:
        """Sends a call and waits for its answer."""
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        try:
            return call.parse(await method(call.body, **self._with(call, timeout)))
        except grpc.aio.AioRpcError as error:
            raise self.exception(error) from error

    def stream(self, call: Call[T], timeout: float | None = None) -> AsyncByteStream:
        """Starts a stream of messages."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(call.path)
        return method(call.body, **self._with(call, timeout))

    async def upload(self, call: Call[T], bodies: Iterator[bytes], timeout: float | None = None) -> T:
        """Sends a stream of messages and waits for the answer."""
        method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(call.path)
        try:
            return call.parse(await method(bodies, **self._with(call, timeout)))
        except grpc.aio.AioRpcError as error:
            raise self.exception(error) from error

    def exchange(self, call: Call[T], bodies: AsyncIterator[bytes], timeout: float | None = None) -> AsyncByteStream:
        """Starts a stream both ways."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(call.path)
        return method(bodies, **self._with(call, timeout))

    def exception(self, error: grpc.aio.AioRpcError) -> SSPError:
        """What a failed call means."""
        return to_exception(error, self.target)

    async def close(self) -> None:
        """Ends the connection and every call on it."""
        await self._channel.close()

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        return self._connection.open_async()

    def _with(self, call: Call[Any], timeout: float | None) -> dict[str, Any]:
        return {
            "timeout": self._timeout if timeout is None else timeout,
            "metadata": self._connection.metadata + call.metadata,
        }
