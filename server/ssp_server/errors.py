"""The border between our exceptions and gRPC's status codes: one table, and the details that clients read."""

import secrets

import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from ssp_runtime.errors import (
    ArtifactError,
    ChatTemplateFailed,
    ChatUnavailable,
    Conflict,
    Draining,
    Exhausted,
    Forbidden,
    InvalidRequest,
    ModelExists,
    ModelInUse,
    ModelMismatch,
    NotFound,
    PositionMismatch,
    SessionBusy,
    SessionExpired,
    SessionMoved,
    SnapshotCorrupt,
    SSPError,
    StateCorrupt,
    StateNotSealed,
    StoreUnavailable,
    StreamCut,
    UnknownCheckpoint,
    UnknownModel,
    UnknownSession,
)

DOMAIN = "ssp.v1"

# The first class that fits counts.
_TABLE: tuple[tuple[type[SSPError], StatusCode, str], ...] = (
    (StateNotSealed, StatusCode.INVALID_ARGUMENT, "STATE_NOT_SEALED"),
    (InvalidRequest, StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    (Forbidden, StatusCode.PERMISSION_DENIED, "FORBIDDEN"),
    (ChatUnavailable, StatusCode.FAILED_PRECONDITION, "CHAT_UNAVAILABLE"),
    (ChatTemplateFailed, StatusCode.FAILED_PRECONDITION, "CHAT_TEMPLATE_FAILED"),
    (ModelExists, StatusCode.FAILED_PRECONDITION, "MODEL_EXISTS"),
    (ModelInUse, StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE"),
    (ArtifactError, StatusCode.FAILED_PRECONDITION, "BAD_MODEL_FOLDER"),
    (UnknownModel, StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
    (SessionExpired, StatusCode.NOT_FOUND, "SESSION_EXPIRED"),
    (UnknownSession, StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"),
    (UnknownCheckpoint, StatusCode.NOT_FOUND, "CHECKPOINT_NOT_FOUND"),
    (NotFound, StatusCode.NOT_FOUND, "NOT_FOUND"),
    (PositionMismatch, StatusCode.ABORTED, "POSITION_MISMATCH"),
    (SessionBusy, StatusCode.ABORTED, "SESSION_BUSY"),
    (SessionMoved, StatusCode.ABORTED, "SESSION_MOVED"),
    (StreamCut, StatusCode.ABORTED, "STREAM_CUT"),
    (Conflict, StatusCode.ABORTED, "CONFLICT"),
    (Exhausted, StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM"),
    (ModelMismatch, StatusCode.FAILED_PRECONDITION, "MODEL_MISMATCH"),
    (SnapshotCorrupt, StatusCode.DATA_LOSS, "SNAPSHOT_CORRUPT"),
    (StoreUnavailable, StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    (Draining, StatusCode.UNAVAILABLE, "DRAINING"),
)

log = structlog.get_logger()


def to_status(error: Exception) -> status_pb2.Status:
    """What the client is told. Of an error that is not meant for users it learns an id, which the log explains."""
    for kind, code, reason in _TABLE:
        if isinstance(error, kind):
            return _status(code, str(error), reason, _retry_after(error))
    error_id = secrets.token_hex(8)
    log.error("internal error", error_id=error_id, exc_info=error)
    message = f"the server failed; its log explains error id {error_id}"
    reason = "STATE_CORRUPT" if isinstance(error, StateCorrupt) else "INTERNAL"
    return _status(StatusCode.INTERNAL, message, reason, metadata={"error_id": error_id})


def unauthenticated() -> status_pb2.Status:
    return _status(StatusCode.UNAUTHENTICATED, "send the metadata `authorization: Bearer <token>`", "UNAUTHENTICATED")


def permission_denied(message: str) -> status_pb2.Status:
    return _status(StatusCode.PERMISSION_DENIED, message, "ADMIN_ONLY")


def malformed(message_name: str) -> status_pb2.Status:
    text = f"the request is not a valid {message_name}: malformed bytes, or text that is not UTF-8"
    return _status(StatusCode.INVALID_ARGUMENT, text, "MALFORMED_REQUEST")


def _retry_after(error: SSPError) -> float | None:
    if isinstance(error, Exhausted):
        return error.retry_after
    return 5.0 if isinstance(error, Draining | StoreUnavailable) else None


def _status(
    code: StatusCode,
    message: str,
    reason: str,
    retry_after: float | None = None,
    metadata: dict[str, str] | None = None,
) -> status_pb2.Status:
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    status.details.append(_packed(info))
    if retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(retry_after * 1000))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
