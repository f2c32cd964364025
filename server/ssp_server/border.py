"""Every call's way in and out: credentials, parsing, our exceptions to statuses, a line in the log.

Requests arrive as bytes and are parsed here, so that malformed ones are the client's error and not an unknown one of
the server.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc_status import rpc_status

from ssp_runtime.errors import Draining, Exhausted
from ssp_server import errors
from ssp_server.metrics import Metrics

log = structlog.get_logger()

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(kw_only=True)
class Border:
    """`token` None lets everybody in."""

    token: str | None
    metrics: Metrics
    calls_under_way: int = field(default=0, init=False)

    def handler(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """gRPC's handler for a service, its calls answered by the servicer's methods of the same names.

        A unary method is `async def (request) -> response`, a streaming one an async generator of responses.
        """
        methods = {method.name: self._method(method, getattr(servicer, method.name)) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _method(self, method: MethodDescriptor, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler[Any, Any]:
        serializer = GetMessageClass(method.output_type).SerializeToString
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, answer), None, serializer)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, answer), None, serializer)

    def _unary(self, method: MethodDescriptor, answer: Callable[[Message], Awaitable[Message]]) -> Any:
        async def handle(data: bytes, context: Context) -> Message:
            started = time.monotonic()
            self.calls_under_way += 1
            try:
                request = await self._admit(method, data, context)
                response = await answer(request)
                _log_call(method, "OK", started)
                return response
            except Exception as error:
                await self._abort(method, error, context, started)
            finally:
                self.calls_under_way -= 1

        return handle

    def _streaming(self, method: MethodDescriptor, answer: Callable[[Message], AsyncIterator[Message]]) -> Any:
        async def handle(data: bytes, context: Context) -> AsyncIterator[Message]:
            started = time.monotonic()
            responses = None
            self.calls_under_way += 1
            try:
                responses = answer(await self._admit(method, data, context))
                async for response in responses:
                    yield response
                _log_call(method, "OK", started)
            except (asyncio.CancelledError, GeneratorExit):
                _log_call(method, "CANCELLED", started)
                raise
            except Exception as error:
                await self._abort(method, error, context, started)
            finally:
                self.calls_under_way -= 1
                if responses is not None:
                    await responses.aclose()  # type: ignore[attr-defined]  # an async generator

        return handle

    async def _admit(self, method: MethodDescriptor, data: bytes, context: Context) -> Message:
        if self.token is not None and not self._authorized(context):
            raise _Refused(errors.unauthenticated())
        request = GetMessageClass(method.input_type)()
        try:
            request.ParseFromString(data)
        except DecodeError:
            raise _Refused(errors.malformed(method.input_type.name)) from None
        return request

    async def _abort(self, method: MethodDescriptor, error: Exception, context: Context, started: float) -> NoReturn:
        status = error.status if isinstance(error, _Refused) else errors.to_status(error)
        if isinstance(error, Exhausted | Draining):
            self.metrics.rejections.labels("draining" if isinstance(error, Draining) else "no_room").inc()
        call_status = rpc_status.to_status(status)
        _log_call(method, call_status.code.name, started, message=status.message)
        await context.abort(call_status.code, call_status.details, call_status.trailing_metadata)
        raise AssertionError("abort raises")

    def _authorized(self, context: Context) -> bool:
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        return hmac.compare_digest(str(given).encode(), f"Bearer {self.token}".encode())


class _Refused(Exception):
    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def _log_call(method: MethodDescriptor, status: str, started: float, **more: str) -> None:
    seconds = round(time.monotonic() - started, 6)
    log.info("call", method=method.full_name, status=status, seconds=seconds, **more)
