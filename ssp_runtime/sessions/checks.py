"""What must hold before a call on a session does anything."""

from ssp_runtime.errors import InvalidRequest, PositionMismatch, SessionBusy, StateCorrupt, UnknownCheckpoint
from ssp_runtime.sessions.session import Checkpoint, Session

MAX_REQUEST_ID = 128


def check_request_id(request_id: str) -> None:
    if len(request_id) > MAX_REQUEST_ID:
        raise InvalidRequest(f"request_id must have at most {MAX_REQUEST_ID} characters, not {len(request_id)}")


def check_idle(session: Session) -> None:
    if session.is_busy:
        raise SessionBusy("another call on this session is under way; wait for it, or close the session")


def check_standing(session: Session, expected: int | None) -> None:
    """That its state is sound, and where the caller expects it."""
    if session.sequence.broken:
        raise StateCorrupt("the state of this session is lost; rewind it to a checkpoint, or close it")
    check_position(session, expected)


def check_position(session: Session, expected: int | None) -> None:
    position = session.sequence.position
    if expected is not None and expected != position:
        raise PositionMismatch(f"the session stands at position {position}, not at {expected}; GetSession tells where")


def known_checkpoint(session: Session, name: str) -> Checkpoint:
    if name not in session.checkpoints:
        there = ", ".join(session.checkpoints) or "none"
        raise UnknownCheckpoint(f"the session has no checkpoint {name!r}; there are: {there}")
    return session.checkpoints[name]
