"""Every call's way in and out: credentials, parsing, our exceptions to statuses, a line in the log.

Requests arrive as bytes and are parsed here, so that malformed ones are the client's error and not an unknown one of
the server.
"""

from __future__ import annotations

import asyncio
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
from ssp_server.access import Access, is_admin_call
from ssp_server.caller import Caller, answer_for
from ssp_server.metrics import Metrics

log = structlog.get_logger()

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

# By whether the requests and the responses are streams.
_HANDLERS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


@dataclass(kw_only=True)
class Border:
    """`calls_under_way` leaves out the administrator's."""

    access: Access
    metrics: Metrics
    calls_under_way: int = field(default=0, init=False)

    def handler(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """gRPC's handler for a service, its calls answered by the servicer's methods of the same names.

        A method is `async def (request) -> response`, or an async generator of responses. If its requests stream, it is
        given an async iterator of them, which raises at a malformed one: let that pass, and the client is told.
        """
        methods = {method.name: self._method(method, getattr(servicer, method.name)) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _method(self, method: MethodDescriptor, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler[Any, Any]:
        handle = self._streaming(method, answer) if method.server_streaming else self._unary(method, answer)
        serializer = GetMessageClass(method.output_type).SerializeToString
        return _HANDLERS[method.client_streaming, method.server_streaming](handle, None, serializer)

    def _unary(self, method: MethodDescriptor, answer: Callable[[Any], Awaitable[Message]]) -> Any:
        counted = not is_admin_call(method)

        async def handle(given: Any, context: Context) -> Message:
            started = time.monotonic()
            self.calls_under_way += counted
            try:
                response = await answer(self._admit(method, given, context))
                _log_call(method, "OK", started)
                return response
            except Exception as error:
                await self._abort(method, error, context, started)
            finally:
                self.calls_under_way -= counted

        return handle

    def _streaming(self, method: MethodDescriptor, answer: Callable[[Any], AsyncIterator[Message]]) -> Any:
        counted = not is_admin_call(method)

        async def handle(given: Any, context: Context) -> AsyncIterator[Message]:
            started = time.monotonic()
            responses = None
            self.calls_under_way += counted
            try:
                responses = answer(self._admit(method, given, context))
                async for response in responses:
                    yield response
                _log_call(method, "OK", started)
            except (asyncio.CancelledError, GeneratorExit):
                _log_call(method, "CANCELLED", started)
                raise
            except Exception as error:
                await self._abort(method, error, context, started)
            finally:
                self.calls_under_way -= counted
                if responses is not None:
                    await responses.aclose()  # type: ignore[attr-defined]  # an async generator

        return handle

    def _admit(
        self, method: MethodDescriptor, given: bytes | AsyncIterator[bytes], context: Context
    ) -> Message | AsyncIterator[Message]:
        authorization = dict(context.invocation_metadata() or ()).get("authorization", "")
        refusal = self.access.refusal(method, str(authorization))
        if refusal is not None:
            raise _Refused(refusal)
        seconds = context.time_remaining()
        deadline = None if seconds is None else time.monotonic() + seconds
        answer_for(Caller(tenant=self.access.tenant(str(authorization)), deadline=deadline))
        return _parse(method, given) if isinstance(given, bytes) else _parse_all(method, given)

    async def _abort(self, method: MethodDescriptor, error: Exception, context: Context, started: float) -> NoReturn:
        status = error.status if isinstance(error, _Refused) else errors.to_status(error)
        if isinstance(error, Exhausted | Draining):
            self.metrics.rejections.labels("draining" if isinstance(error, Draining) else "no_room").inc()
        call_status = rpc_status.to_status(status)
        _log_call(method, call_status.code.name, started, message=status.message)
        await context.abort(call_status.code, call_status.details, call_status.trailing_metadata)
        raise AssertionError("abort raises")


class _Refused(Exception):
    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def _parse(method: MethodDescriptor, data: bytes) -> Message:
    request = GetMessageClass(method.input_type)()
    try:
        request.ParseFromString(data)
    except DecodeError:
        raise _Refused(errors.malformed(method.input_type.name)) from None
    return request


async def _parse_all(method: MethodDescriptor, requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for data in requests:
        yield _parse(method, data)


def _log_call(method: MethodDescriptor, status: str, started: float, **more: str) -> None:
    seconds = round(time.monotonic() - started, 6)
    log.info("call", method=method.full_name, status=status, seconds=seconds, **more)
