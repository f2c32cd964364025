"""The calls that carry states; see `ssp_client.calls`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ssp.v1 import sessions_pb2
from ssp_client import wire
from ssp_client.calls import Call, make_call, new_request_id, routing_key_of
from ssp_client.types import SessionInfo, StateDtype

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class StatePiece:
    """A message of ExportState: the first tells the state's position and size, the others bring data."""

    position: int
    total_bytes: int
    data: bytes


def export_state(
    *, session_id: str, checkpoint: str, expected_position: int | None, dtype: StateDtype | None
) -> Call[StatePiece]:
    """A stream of a session's state."""
    return make_call(
        "/ssp.v1.Sessions/ExportState",
        sessions_pb2.ExportStateRequest(
            session_id=session_id,
            checkpoint=checkpoint,
            expected_position=expected_position,
            dtype=wire.dtype_to_proto(dtype),
        ),
        sessions_pb2.ExportStateResponse,
        lambda response: StatePiece(position=response.position, total_bytes=response.total_bytes, data=response.data),
        routing_key_of(session_id),
    )


def import_state(*, model: str, routing_key: str, request_id: str, ttl: float | None) -> Call[SessionInfo]:
    """A new session of a state, whose parts follow as `import_state_body`; without `request_id` it gets a fresh one."""
    return make_call(
        "/ssp.v1.Sessions/ImportState",
        sessions_pb2.ImportStateRequest(
            model=model,
            routing_key=routing_key,
            request_id=request_id or new_request_id(),
            ttl=None if ttl is None else wire.duration_to_proto(ttl),
        ),
        sessions_pb2.ImportStateResponse,
        lambda response: wire.session_from_proto(response.session),
        routing_key,
    )


def import_state_bodies(call: Call[SessionInfo], data: bytes) -> Iterator[bytes]:
    """All messages of the stream."""
    yield call.body
    for start in range(0, len(data), _PIECE_BYTES):
        yield sessions_pb2.ImportStateRequest(data=data[start : start + _PIECE_BYTES]).SerializeToString()
