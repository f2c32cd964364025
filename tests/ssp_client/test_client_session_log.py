"""What a session keeps of its calls, until the server has saved them."""

from __future__ import annotations

import time

import pytest

from ssp.v1 import common_pb2, generation_pb2, sessions_pb2
from ssp_client import (
    FinishReason,
    GenerateChunk,
    NotFound,
    PositionMismatch,
    SamplingParams,
    SessionMoved,
    SessionStatus,
    StoreUnavailable,
    Unavailable,
    calls,
    session_log,
)
from ssp_client.cursor import Cursor, Turn
from ssp_client.session_log import Entry, SessionLog
from ssp_client.tries import Tries


def status(position: int, committed: int = 0) -> SessionStatus:
    return SessionStatus(session_id="r.1", position=position, committed_position=committed, version=position)


def appended(position: int, text: str = "a") -> Entry:
    call = calls.append(text, session_id="r.1", expected_position=None, request_id="", priority=0)
    entry = Entry(call, streams=False)
    entry.position = position
    return entry


def chunk(
    *token_ids: int, at: int, committed: int = 0, finish: FinishReason | None = None, carried: int = 0, text: str = ""
) -> GenerateChunk:
    return GenerateChunk(
        token_ids=token_ids,
        text=text,
        session=status(at, committed),
        finish_reason=finish,
        carried_tokens=carried,
    )


def generating(cursor: Cursor) -> Turn:
    call = cursor.generate(
        None,
        sampling_params=SamplingParams(),
        expected_position=None,
        request_id="x",
        stream_options=None,
        priority=0,
    )
    return Turn(call, cursor)


def request_of(turn: Turn) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest.FromString(turn.again.body)


def sent_again(cursor: Cursor, position: int) -> generation_pb2.GenerateRequest:
    (entry,) = cursor.missing(status(position))
    return generation_pb2.GenerateRequest.FromString(entry.again.body)


# The log


def test_what_the_server_has_not_saved_is_missing_in_order() -> None:
    log = SessionLog()
    entries = [appended(position) for position in (3, 5, 9)]
    for entry in entries:
        log.add(entry)
    assert [log.missing(position) for position in (0, 3, 4, 9)] == [entries, entries[1:], entries[1:], []]


def test_what_is_saved_is_dropped_and_cannot_be_lost_unnoticed() -> None:
    log = SessionLog()
    for position in (3, 5, 9):
        log.add(appended(position))
    log.saved(6)
    assert len(log) == 1 and len(log.missing(6)) == 1
    with pytest.raises(PositionMismatch, match="lost what this session did after position 5"):
        log.missing(5)


@pytest.mark.parametrize(("name", "bound"), [("MAX_CALLS", 2), ("MAX_BYTES", 2 * appended(0).num_bytes)])
def test_the_oldest_give_way_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch, name: str, bound: int) -> None:
    monkeypatch.setattr(session_log, name, bound)
    log = SessionLog()
    for position in (3, 5, 9):
        log.add(appended(position))
    assert len(log) == 2 and len(log.missing(3)) == 2
    with pytest.raises(PositionMismatch):
        log.missing(2)


def test_a_call_past_the_bound_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_log, "MAX_BYTES", 200)
    cursor = Cursor("r.1", check_position=True, status=status(0))
    turn = generating(cursor)
    assert turn.can_resume
    turn.chunk(chunk(*range(100), at=100))
    assert not turn.can_resume
    turn.chunk(chunk(7, at=101, finish=FinishReason.LENGTH))
    with pytest.raises(PositionMismatch):
        cursor.missing(status(100))
    assert cursor.position is None and cursor.missing(status(100)) == [], "it goes on from there"


def test_a_rewound_session_has_nothing_behind_it() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(9, 9))
    cursor.rewound(status(4, 4))
    assert cursor.missing(status(4)) == [] and cursor.position == 4


def test_steps_are_not_done_again() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(0))
    cursor.ended(appended(4))
    cursor.stepped(status(9))
    assert cursor.position == 9 and cursor.missing(status(9)) == []
    with pytest.raises(PositionMismatch):
        cursor.missing(status(4))


# Calls in it


def test_a_generation_is_done_again_with_what_it_brought() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(3, 3))
    turn = generating(cursor)
    turn.chunk(chunk(7, 8, at=5, committed=3))
    turn.chunk(chunk(9, at=6, committed=4, finish=FinishReason.LENGTH))
    request = sent_again(cursor, 4)
    assert (list(request.received_ids), request.request_id, request.expected_position) == ([7, 8, 9], "x", 3)
    assert request.sampling_params.HasField("seed"), "it draws the same"
    assert not request.sampling_params.HasField("max_tokens")
    assert cursor.position == 6 and cursor.is_settled
    cursor.note(status(6, 6))
    assert cursor.missing(status(6)) == []


@pytest.mark.parametrize("aborted", [False, True])
def test_a_cut_generation_is_done_again_as_far_as_it_came(aborted: bool) -> None:
    cursor = Cursor("r.1", check_position=True, status=status(3))
    turn = generating(cursor)
    turn.chunk(chunk(7, 8, at=5, finish=FinishReason.ABORT if aborted else None))
    turn.ended()
    assert not cursor.is_settled and cursor.position == (5 if aborted else None)
    assert sent_again(cursor, 3).sampling_params.max_tokens == 2
    cursor.settled(status(6, 6))
    assert cursor.is_settled and cursor.missing(status(6)) == []


def test_tokens_left_behind_by_one_call_are_not_the_next_ones() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(3))
    first = generating(cursor)
    first.chunk(chunk(7, at=4))
    first.ended()
    cursor.settled(status(6, 6))  # two more than came
    second = generating(cursor)
    second.chunk(chunk(8, 9, 10, at=7, committed=6, carried=2))
    second.ended()
    again = sent_again(cursor, 6)
    assert list(again.received_ids) == [8, 9, 10] and again.sampling_params.max_tokens == 1
    cursor.settled(status(7, 7))
    third = generating(cursor)
    third.chunk(chunk(11, at=8, committed=7))
    third.ended()
    assert sent_again(cursor, 7).sampling_params.max_tokens == 1


def test_the_call_after_a_cut_one_says_what_came() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(3))
    cut = generating(cursor)
    cut.chunk(chunk(7, 8, at=5, text="añ"))
    cut.chunk(chunk(9, at=6, text="b"))
    cut.ended()
    append = sessions_pb2.AppendRequest.FromString(cursor.append("a", None, "", 0).body)
    again = request_of(generating(cursor))
    assert append.receipt == again.receipt == common_pb2.Receipt(request_id="x", num_tokens=3, num_characters=3)


def test_a_receipt_is_of_the_last_call_only() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(3))
    cut = generating(cursor)
    cut.chunk(chunk(7, at=4))
    cut.ended()
    whole = generating(cursor)
    whole.chunk(chunk(8, at=5, finish=FinishReason.LENGTH))
    assert not request_of(generating(cursor)).HasField("receipt")
    cut = generating(cursor)
    cut.ended()
    cursor.appended(cursor.append("a", None, "", 0), status(6))
    assert not request_of(generating(cursor)).HasField("receipt")
    generating(cursor).ended()
    cursor.rewound(status(3))
    assert not request_of(generating(cursor)).HasField("receipt")


def test_what_another_server_has_gone_on_with_never_was() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(3))
    cursor.ended(appended(5))
    turn = generating(cursor)
    turn.chunk(chunk(7, at=6))
    turn.failed(SessionMoved("elsewhere"))
    assert cursor.missing(status(3)) == [] and cursor.position is None and not cursor.is_settled


def test_a_cut_generation_that_brought_nothing_is_forgotten() -> None:
    cursor = Cursor("r.1", check_position=True, status=status(3))
    generating(cursor).ended()
    assert not cursor.is_settled and cursor.missing(status(3)) == []


def test_where_others_write_nothing_is_kept() -> None:
    cursor = Cursor("r.1", check_position=False, status=status(3))
    turn = generating(cursor)
    turn.chunk(chunk(7, at=4))
    assert turn.can_resume, "the call under way is"
    turn.ended()
    assert cursor.is_settled and cursor.missing(status(3)) == []


# Tries


def test_tries_wait_longer_every_time_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made, pauses = Tries(10.0), []
    while (pause := made.before_retry(Unavailable("gone"))) is not None:
        pauses.append(pause)
        now += pause
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0] and now < 110
    made.reset()
    assert made.before_retry(Unavailable("gone")) == 0.1


def test_tries_honour_what_the_server_says() -> None:
    made = Tries(10.0)
    assert made.before_retry(StoreUnavailable("away", retry_after=5.0)) == 5.0
    assert made.before_retry(StoreUnavailable("away", retry_after=60.0)) is None, "too late"
    assert made.before_retry(NotFound("closed")) is None
    assert made.before_retry(PositionMismatch("elsewhere")) == 0.0
    assert made.before_retry(PositionMismatch("elsewhere")) is None, "once"
    assert Tries(0.0).before_retry(PositionMismatch("elsewhere")) is None
    assert Tries(0.0).before_retry(Unavailable("gone")) is None
