"""What can go wrong, as exceptions.

    SSPError
    ├── InvalidArgument             (also a ValueError)
    │   ├── InvalidSequence         which of many sequences: `.index`
    │   ├── StateNotSealed          a state that was changed, or given by a server with another key
    │   └── OutOfRange              past the `max_context` of a full-attention model
    ├── NotFound                    (also a LookupError) no such model or session
    │   └── SessionExpired          its `ttl` has passed
    ├── Aborted
    │   ├── PositionMismatch        the session does not stand at `expected_position`
    │   ├── SessionBusy             another call on it is under way
    │   └── SessionMoved            it lives on another replica now
    ├── FailedPrecondition
    │   └── ModelMismatch           a snapshot of another model
    ├── ResourceExhausted           no room, queue full or quota: try again after `.retry_after` seconds
    ├── Unavailable                 the server drains or the connection broke: `.retry_after` where it says so
    │   ├── StoreUnavailable        the server's session store does not answer
    │   └── ServerUnreachable       no server answers at the target
    ├── Unauthenticated             no token, or a wrong one
    ├── PermissionDenied            the token does not allow this
    ├── Unimplemented               the server is older than this client
    ├── DataLoss                    a corrupt snapshot
    ├── Internal                    the server's bug: report `.error_id`
    ├── Cancelled                   the call was cancelled
    └── DeadlineExceeded            (also a TimeoutError) `timeout` has passed

`REASONS` and `CODES` are the one mapping from what a server answers to these classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc


class SSPError(Exception):
    """Base of every failure of a call; raised itself only for statuses with no class of their own.

    Attributes:
        message: what happened and what to do, one sentence.
        code: the gRPC status the server (or the connection) answered; None when the client refused by itself.
        reason: `google.rpc.ErrorInfo.reason`, for example "SESSION_BUSY"; empty if the server gave none.
        retry_after: seconds to wait before trying again, if the server said so (`google.rpc.RetryInfo`).
        error_id: names this failure in the server's log; empty if the server gave none.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        retry_after: float | None = None,
        error_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.retry_after = retry_after
        self.error_id = error_id

    def __str__(self) -> str:
        return self.message


class InvalidArgument(SSPError, ValueError):
    """An argument is wrong; the message says which and why."""


class InvalidSequence(InvalidArgument):
    """One sequence of many cannot be classified.

    Attributes:
        index: its place in the sequences given, from 0.
    """

    def __init__(self, message: str, *, index: int, code: grpc.StatusCode | None = None, reason: str = "") -> None:
        super().__init__(message, code=code, reason=reason)
        self.index = index

    def __str__(self) -> str:
        return f"sequence {self.index}: {self.message}"


class StateNotSealed(InvalidArgument):
    """The state was changed since the server gave it, or comes from a server with another key; begin anew."""


class OutOfRange(InvalidArgument):
    """Past the longest context of a full-attention model."""


class NotFound(SSPError, LookupError):
    """No such model or session."""


class SessionExpired(NotFound):
    """The session's `ttl` has passed; open a new one."""


class Aborted(SSPError):
    """The session was not in the state the call needs; nothing was changed."""


class PositionMismatch(Aborted):
    """The session does not stand at `expected_position`: another client has advanced it."""


class SessionBusy(Aborted):
    """Another call on the session is under way."""


class SessionMoved(Aborted):
    """The session lives on another replica now."""


class FailedPrecondition(SSPError):
    """The server is not in the state the call needs."""


class ModelMismatch(FailedPrecondition):
    """The snapshot belongs to another model."""


class ResourceExhausted(SSPError):
    """No room, a full queue or a quota; try again after `retry_after` seconds."""


class Unavailable(SSPError):
    """The server drains, or the connection broke."""


class StoreUnavailable(Unavailable):
    """The session store of the server does not answer."""


class ServerUnreachable(Unavailable):
    """No server answers at the target."""


class Unauthenticated(SSPError):
    """The server wants a token, or another one."""


class PermissionDenied(SSPError):
    """The token does not allow this call."""


class Unimplemented(SSPError):
    """The server does not know this call."""


class DataLoss(SSPError):
    """A stored state is corrupt."""


class Internal(SSPError):
    """The server's own bug; its log tells more under `error_id`."""


class Cancelled(SSPError):
    """The call was cancelled."""


class DeadlineExceeded(SSPError, TimeoutError):
    """The call did not finish within its timeout."""


REASONS: Mapping[tuple[grpc.StatusCode, str], type[SSPError]] = {
    (grpc.StatusCode.INVALID_ARGUMENT, "STATE_NOT_SEALED"): StateNotSealed,
    (grpc.StatusCode.NOT_FOUND, "SESSION_EXPIRED"): SessionExpired,
    (grpc.StatusCode.ABORTED, "POSITION_MISMATCH"): PositionMismatch,
    (grpc.StatusCode.ABORTED, "SESSION_BUSY"): SessionBusy,
    (grpc.StatusCode.ABORTED, "SESSION_MOVED"): SessionMoved,
    (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_MISMATCH"): ModelMismatch,
    (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"): StoreUnavailable,
}

CODES: Mapping[grpc.StatusCode, type[SSPError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}

# After these nobody knows where the session stands: the call may have reached it, or another server has it.
OUTCOME_UNKNOWN = (Unavailable, DeadlineExceeded, Cancelled, Internal, DataLoss, SessionMoved)


def error_class(code: grpc.StatusCode, reason: str) -> type[SSPError]:
    """The exception class for a status and its `ErrorInfo.reason`."""
    return REASONS.get((code, reason)) or CODES.get(code, SSPError)
