"""Carries calls over a synchronous channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar, cast

import grpc

from ssp_client.calls import Call
from ssp_client.channel import Connection
from ssp_client.errors import SSPError
from ssp_client.status import to_exception

T = TypeVar("T")


class ByteStream(Protocol):
    """The messages of a running call."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def cancel(self) -> object: ...


class Transport:
    """One connection. `timeout` is in seconds and holds for calls that bring none of their own; for
    `recovery_seconds` sessions wait for a server that went away."""

    def __init__(self, connection: Connection, timeout: float | None, recovery_seconds: float) -> None:
        self.target, self.recovery_seconds = connection.target, recovery_seconds
        self._metadata = connection.metadata
        self._timeout = timeout
        self._channel = connection.open()

    def unary(self, call: Call[T], timeout: float | None = None) -> T:
        """Sends a call and waits for its answer."""
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        try:
            return call.parse(method(call.body, **self._with(call, timeout)))
        except grpc.RpcError as error:
            raise self.exception(error) from error

    def stream(self, call: Call[T], timeout: float | None = None) -> ByteStream:
        """Starts a stream of messages."""
        method: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(call.path)
        return cast(ByteStream, method(call.body, **self._with(call, timeout)))

    def upload(self, call: Call[T], bodies: Iterator[bytes], timeout: float | None = None) -> T:
        """Sends a stream of messages and waits for the answer. `bodies` is read elsewhere; it must not raise."""
        method: grpc.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(call.path)
        try:
            return call.parse(method(bodies, **self._with(call, timeout)))
        except grpc.RpcError as error:
            raise self.exception(error) from error

    def exchange(self, call: Call[T], bodies: Iterator[bytes], timeout: float | None = None) -> ByteStream:
        """Starts a stream both ways. `bodies` is read in another thread; it must not raise."""
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(call.path)
        return cast(ByteStream, method(bodies, **self._with(call, timeout)))

    def exception(self, error: grpc.RpcError) -> SSPError:
        """What a failed call means."""
        return to_exception(cast(grpc.Call, error), self.target)

    def close(self) -> None:
        """Ends the connection and every call on it."""
        self._channel.close()

    def _with(self, call: Call[Any], timeout: float | None) -> dict[str, Any]:
        return {
            "timeout": self._timeout if timeout is None else timeout,
            "metadata": self._metadata + call.metadata,
        }
