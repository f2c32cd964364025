"""What a client is told of each error: the status, its reason, and when to ask again."""

import pytest
import structlog
from google.rpc import error_details_pb2
from grpc import StatusCode

from ssp_client.errors import (
    DataLoss,
    Internal,
    ModelMismatch,
    ResourceExhausted,
    SessionMoved,
    StoreUnavailable,
    error_class,
)
from ssp_client.errors import SSPError as ClientError
from ssp_runtime import errors
from ssp_server.errors import to_status

CASES: tuple[tuple[type[errors.SSPError], str, str, type[ClientError], bool], ...] = (
    (errors.SessionMoved, "ABORTED", "SESSION_MOVED", SessionMoved, False),
    (errors.SnapshotCorrupt, "DATA_LOSS", "SNAPSHOT_CORRUPT", DataLoss, False),
    (errors.ModelMismatch, "FAILED_PRECONDITION", "MODEL_MISMATCH", ModelMismatch, False),
    (errors.StoreUnavailable, "UNAVAILABLE", "STORE_UNAVAILABLE", StoreUnavailable, True),
    (errors.StoreFull, "RESOURCE_EXHAUSTED", "NO_ROOM", ResourceExhausted, True),
)


@pytest.mark.parametrize(("kind", "code", "reason", "client_kind", "again"), CASES)
def test_what_goes_wrong_with_stored_sessions(
    kind: type[errors.SSPError], code: str, reason: str, client_kind: type[ClientError], again: bool
) -> None:
    status = to_status(kind("what happened"))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message, info.reason) == (StatusCode[code].value[0], "what happened", reason)
    assert error_class(StatusCode[code], reason) is client_kind
    assert any(detail.Unpack(retry) for detail in status.details) is again
    assert (retry.retry_delay.ToTimedelta().total_seconds() > 0) is again


def test_of_a_lost_state_an_error_id_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssp_server.errors.log", structlog.wrap_logger(structlog.ReturnLogger()))
    status, info = to_status(errors.StateCorrupt("layers.3 holds NaN")), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.reason) == (StatusCode.INTERNAL.value[0], "STATE_CORRUPT")
    assert info.metadata["error_id"] in status.message and "layers" not in status.message
    assert error_class(StatusCode.INTERNAL, info.reason) is Internal
