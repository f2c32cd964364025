"""From a failed gRPC call to the exception a user sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ssp_client.errors import ServerUnreachable, SSPError, Unavailable, error_class

_NO_CONNECTION = re.compile(r"failed to connect|connection refused|DNS|name resolution|no such file", re.IGNORECASE)
_ERROR_ID = re.compile(r"error[ _]id:? (\S+?)[.;,)]*(?:\s|$)", re.IGNORECASE)


class FailedCall(Protocol):
    """What `grpc.RpcError` carries, of synchronous and asyncio calls alike."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def to_exception(call: FailedCall, target: str) -> SSPError:
    """Turns a failed call on the server at `target` into the exception that says what happened."""
    code, details = call.code(), call.details() or call.code().name.lower().replace("_", " ")
    info, retry_after = _error_details(_rich_status(call))
    kind = error_class(code, info.reason)
    if kind is Unavailable and not info.reason and retry_after is None:
        kind, details = _connection_failure(details, target)
    return kind(details, code=code, reason=info.reason, retry_after=retry_after, error_id=_error_id(info, details))


def _rich_status(call: FailedCall) -> status_pb2.Status:
    try:
        status = rpc_status.from_call(call)  # type: ignore[arg-type]  # asks for a grpc.Call, uses what is above
    except ValueError:  # the rich status contradicts the plain one: believe the plain one
        status = None
    return status or status_pb2.Status()


def _error_details(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    info, retry, retry_after = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return info, retry_after


def _connection_failure(details: str, target: str) -> tuple[type[Unavailable], str]:
    if _NO_CONNECTION.search(details):
        return ServerUnreachable, f"no server answers at {target}; start one with `ssp-server serve`"
    return Unavailable, f"the connection to {target} failed: {details}"


def _error_id(info: error_details_pb2.ErrorInfo, details: str) -> str:
    match = _ERROR_ID.search(details)
    return str(info.metadata.get("error_id", match.group(1) if match else ""))
