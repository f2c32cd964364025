"""Carries calls over a synchronous channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc

from ssp_client.calls import Call
from ssp_client.channel import Connection
from ssp_client.errors import SSPError
from ssp_client.status import to_exception

T = TypeVar("T")


class ByteStream(Protocol):
    """The messages of a running call."""

    def __next__(self) -> bytes: ...
    def cancel(self) -> object: ...


@dataclass(frozen=True, kw_only=True)
class Pending(Generic[T]):
    """A call under way."""

    future: Any  # a grpc.Future of bytes that is a grpc.Call too
    parse: Callable[[bytes], T]
    target: str

    def result(self) -> T:
        """Waits for the answer; raises `SSPError` if the call failed."""
        try:
            return self.parse(self.future.result())
        except grpc.RpcError as error:
            raise to_exception(cast(grpc.Call, error), self.target) from error
        except grpc.FutureCancelledError as error:
            raise to_exception(self.future, self.target) from error

    def cancel(self) -> None:
        """Cancels the call unless it has ended."""
        self.future.cancel()


class Transport:
    """One connection. `timeout` is in seconds and holds for calls that bring none of their own."""

    def __init__(self, connection: Connection, timeout: float | None) -> None:
        self.target = connection.target
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

    def begin(self, call: Call[T], timeout: float | None = None) -> Pending[T]:
        """Sends a call without waiting."""
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        future = method.future(call.body, **self._with(call, timeout))
        return Pending(future=future, parse=call.parse, target=self.target)

    def stream(self, call: Call[T], timeout: float | None = None) -> ByteStream:
        """Starts a stream of messages."""
        method: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(call.path)
        return cast(ByteStream, method(call.body, **self._with(call, timeout)))

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
