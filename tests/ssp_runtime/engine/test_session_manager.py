"""Sessions: states with names, that retries never advance twice."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.generator import GenerationLimits
from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.errors import (
    Exhausted,
    InvalidRequest,
    PositionMismatch,
    SessionBusy,
    SessionExpired,
    StateCorrupt,
    UnknownSession,
)
from ssp_runtime.sessions.roster import SessionLimits
from ssp_runtime.sessions.session import Session
from tests.ssp_runtime.engine.engine_harness import GREEDY, Driver, driver, tiny_model

TEXT = list(b"the quick brown fox jumps over the lazy dog")
CONTEXT = [0, *TEXT]


def cut_after(made: Driver, session: Session, tokens: int, **sampling: object) -> Call:
    """A call "first" that is cut after so many tokens, none of them delivered."""
    made.hooks.on_token = lambda call: made.engine.cancel(call) if call.num_generated == tokens else None
    cut = made.ended(made.start(session, TEXT, request_id="first", **sampling))
    made.hooks.reset()
    assert cut.finish_reason is FinishReason.ABORT and cut.num_generated == tokens
    return cut


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, len(TEXT) - 1), max_size=4))
def test_appending_in_pieces_equals_one_prompt(cuts: list[int]) -> None:
    with driver() as made:
        session, begin = made.open(), 0
        for end in sorted(set(cuts)):
            made.append(session, TEXT[begin:end])
            assert session.sequence.position == session.sequence.settled == 1 + end
            begin = end
        GREEDY.check(made.complete(session, TEXT[begin:]), CONTEXT)


def test_version_and_positions() -> None:
    with driver() as made:
        session, states = made.open(), []
        sequence = session.sequence
        for step in (
            lambda: None,
            lambda: made.append(session, TEXT),
            lambda: made.complete(session, max_tokens=5),
            lambda: made.complete(session, [1], max_tokens=1),
        ):
            step()
            states.append((sequence.position, sequence.settled, sequence.version))
        assert states == [(0, 0, 0), (44, 44, 1), (49, 49, 2), (51, 51, 3)]


def test_a_retry_after_the_end_repeats_the_answer() -> None:
    with driver() as made:
        session = made.open()
        first = made.start(session, TEXT, request_id="a")
        tokens = made.finish(first)
        retry = made.start(session, TEXT, request_id="a")
        assert made.finish(retry) == tokens and made.text(retry) == made.text(first)
        assert (retry.finish_reason, retry.num_prompt_tokens) == (FinishReason.LENGTH, first.num_prompt_tokens)
        assert (session.sequence.position, session.sequence.version) == (44 + 12, 1)
        GREEDY.check(tokens + made.complete(session), CONTEXT)


def test_a_retried_append_folds_once() -> None:
    with driver() as made:
        session = made.open()
        for _ in range(3):
            call = made.append(session, TEXT, request_id="a")
            assert call.last is not None and (call.num_prompt_tokens, call.last.position) == (44, 44)
        assert session.sequence.version == 1
        GREEDY.check(made.complete(session), CONTEXT)


def test_a_retry_after_a_cut_goes_on_where_it_was_cut() -> None:
    with driver() as made:
        session = made.open()
        cut_after(made, session, 5)
        retry = made.start(session, TEXT, request_id="first")
        tokens = made.finish(retry)
        assert len(tokens) == 12 and session.sequence.position == 44 + 12
        GREEDY.check(tokens, CONTEXT)


def test_a_retry_after_two_cuts_goes_on_too() -> None:
    with driver() as made:
        session = made.open()
        cut_after(made, session, 5)
        cut_after(made, session, 8)
        tokens = made.finish(made.start(session, TEXT, request_id="first"))
        assert len(tokens) == 12
        GREEDY.check(tokens, CONTEXT)


def test_a_retry_after_a_cut_in_the_prompt_folds_the_rest() -> None:
    with driver(piece=10) as made:
        session = made.open()
        made.hooks.on_prefilled = lambda _: list(map(made.engine.cancel, made.engine._calls))
        made.ended(made.start(session, TEXT, request_id="first"))
        made.hooks.reset()
        assert 10 <= session.sequence.position < 44
        GREEDY.check(made.finish(made.start(session, TEXT, request_id="first")), CONTEXT)


def test_a_retry_keeps_min_tokens() -> None:
    ends = {"logit_bias": {0: 100.0}, "ignore_eos": False, "min_tokens": 8}
    with driver() as made:
        whole = made.complete(made.open(), TEXT, **ends)
        session = made.open()
        cut_after(made, session, 5, **ends)
        retry = made.start(session, TEXT, request_id="first", **ends)
        assert made.finish(retry) == whole and retry.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_stop_text_is_found_across_a_cut(tokens: int) -> None:
    stop = {"logit_bias": {ord("x"): 100.0}, "stop": ["xxx"]}
    with driver() as made:
        session = made.open()
        cut_after(made, session, tokens, **stop)
        retry = made.start(session, TEXT, request_id="first", **stop)
        assert made.finish(retry) == [ord("x")] * 3 and made.text(retry) == ""
        assert retry.finish_reason is FinishReason.STOP


def test_tokens_that_nobody_took_come_first_in_the_next_call() -> None:
    with driver() as made:
        session = made.open()
        cut = cut_after(made, session, 6)
        cut.take(2)
        following = made.start(session, max_tokens=5)
        tokens = made.finish(following)
        assert len(tokens) == 4 + 5
        GREEDY.check([*GREEDY.tokens(CONTEXT, 2), *tokens], CONTEXT)
        assert len(made.complete(session, max_tokens=1)) == 1, "they came twice"


def test_text_held_for_a_stop_that_was_cut_is_not_lost() -> None:
    with driver() as made:
        session = made.open()
        cut_after(made, session, 2, logit_bias={ord("x"): 100.0}, stop=["xxx"])
        following = made.start(session, logit_bias={ord("y"): 100.0}, max_tokens=2)
        made.finish(following)
        assert made.text(following) == "xxyy"


def test_undelivered_tokens_wait_through_an_append() -> None:
    with driver() as made:
        session = made.open()
        cut_after(made, session, 3)
        made.append(session, [1])
        tokens = made.complete(session, max_tokens=1)
        assert tokens[:3] == GREEDY.tokens(CONTEXT, 3) and len(tokens) == 4


def test_drawn_tokens_do_not_depend_on_where_calls_begin() -> None:
    drawn: dict[str, Any] = {"temperature": 1.0, "seed": 3, "repetition_penalty": 1.3, "presence_penalty": 0.2}
    with driver() as made:
        whole = made.complete(made.open(), TEXT, **drawn)
        session = made.open()
        made.append(session, TEXT)
        assert [token for count in (5, 1, 6) for token in made.complete(session, max_tokens=count, **drawn)] == whole


def test_a_refused_call_is_forgotten() -> None:
    with driver(limits=GenerationLimits(max_waiting=1), started=False) as made:
        session, other = made.open(), made.start(made.open())
        with pytest.raises(Exhausted):
            made.start(session, TEXT, request_id="first")
        made.engine.start()
        made.finish(other)
        GREEDY.check(made.complete(session, TEXT, request_id="first"), CONTEXT)
        made.engine.stop()


def test_one_call_at_a_time() -> None:
    with driver(max_ahead=2) as made:
        session = made.open()
        call = made.start(session, TEXT)
        with pytest.raises(SessionBusy, match="under way"):
            made.start(session)
        made.finish(call)
        made.complete(session)


def test_the_expected_position() -> None:
    with driver() as made:
        session = made.open()
        made.append(session, TEXT)
        with pytest.raises(PositionMismatch, match="stands at position 44, not at 43"):
            made.sessions.start(session, [1], None, expected_position=43)
        made.ended(made.sessions.start(session, [1], None, expected_position=44))
        assert session.sequence.position == 45


def test_closing_a_busy_session_frees_its_slot() -> None:
    with driver(max_ahead=2) as made:
        session = made.open()
        call = made.start(session, TEXT)
        made.wait(lambda: call.num_unread == 2)
        made.sessions.close(session.id)
        assert made.ended(call).finish_reason is FinishReason.ABORT
        assert made.engine.pool.num_used == 0


def test_closing_an_idle_session_frees_its_slot() -> None:
    with driver() as made:
        session = made.open()
        made.complete(session, TEXT)
        assert made.engine.pool.num_used == 1
        made.sessions.close(session.id)
        made.settle()
        assert made.engine.pool.num_used == 0
        with pytest.raises(UnknownSession):
            made.sessions.close(session.id)
        with pytest.raises(UnknownSession):
            made.start(session)


def test_a_session_whose_state_is_lost_does_not_begin_anew_in_silence() -> None:
    with driver() as made:
        session = made.open()
        name = next(name for name, spec in tiny_model().state_spec.items() if spec.kind == "accumulator")
        made.hooks.on_token = lambda call: made.engine.pool.row(call.sequence)[name].fill_(float("nan"))
        made.finish(made.start(session, TEXT))
        made.hooks.reset()
        with pytest.raises(StateCorrupt):
            made.start(session)
        made.sessions.close(session.id)


def test_opening_again_with_the_same_request_id() -> None:
    with driver() as made:
        first = made.sessions.open(made.generator, request_id="a")
        assert made.sessions.open(made.generator, request_id="a") is first
        assert made.sessions.open(made.generator, request_id="b") is not first
        made.sessions.close(first.id)
        assert made.sessions.open(made.generator, request_id="a") is not first


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (SessionLimits(max_sessions=2), "2 sessions are open, as many as allowed"),
        (SessionLimits(max_state_bytes=60_000), "fill the memory"),
    ],
)
def test_there_is_room_for_so_many_sessions(limits: SessionLimits, message: str) -> None:
    with driver(session_limits=limits) as made:
        assert 2 * made.generator.state_bytes <= 60_000 < 3 * made.generator.state_bytes
        first, _ = made.open(), made.open()
        with pytest.raises(Exhausted, match=message):
            made.open()
        made.sessions.close(first.id)
        made.open()


def test_pages_go_on_after_their_sessions_were_closed() -> None:
    with driver() as made:
        ids = [made.open().id for _ in range(5)]
        seen, token = [], ""
        while True:
            page, token = made.sessions.list("", token, 2)
            for session in page:
                seen.append(made.sessions.close(session.id).id)
            if not token:
                break
        assert seen == ids
        with pytest.raises(InvalidRequest, match="page_token"):
            made.sessions.list("", "nonsense", 2)
        assert made.sessions.list("another model", "", 2) == ([], "")


def test_the_census_counts_tiers_and_statuses() -> None:
    with driver(slots=1, max_ahead=2) as made:
        sessions = [made.open() for _ in range(3)]
        for session in sessions:
            made.complete(session, TEXT, max_tokens=1)
        busy = made.start(sessions[2], max_tokens=5)
        made.wait(lambda: busy.num_unread == 2)
        census = made.sessions.census()
        assert census.sessions == {("host", "idle"): 2, ("device", "busy"): 1}
        assert sum(census.state_bytes.values()) == 3 * made.generator.state_bytes


@pytest.mark.parametrize("key", ["a b", "x" * 65, "a.b", "é", "a\n"])
def test_malformed_routing_keys(key: str) -> None:
    with driver() as made, pytest.raises(InvalidRequest, match="routing_key"):
        made.sessions.open(made.generator, routing_key=key)


@pytest.mark.parametrize("session_id", ["", "x", "a." + "g" * 32, "a." + "0" * 31, "a." + "0" * 32 + "\n", "../x"])
def test_malformed_ids(session_id: str) -> None:
    with driver() as made, pytest.raises(InvalidRequest, match="a session_id is <routing_key>"):
        made.sessions.get(session_id)


def test_ids_are_secret_and_carry_their_routing_key() -> None:
    with driver() as made:
        ids = {made.sessions.open(made.generator, routing_key="tenant-7").id for _ in range(50)}
        assert len(ids) == 50 and all(each.startswith("tenant-7.") and len(each) == 9 + 32 for each in ids)


def test_a_session_that_nobody_uses_for_its_ttl_is_closed() -> None:
    with driver() as made:
        kept, gone = made.open(), made.sessions.open(made.generator, ttl=60)
        made.append(gone, TEXT)
        forked = made.sessions.fork(gone)
        for session in (kept, gone):
            session.sequence.last_used -= 61
        assert made.sessions.get(kept.id) is kept and made.sessions.get(forked.id) is forked
        for _ in range(2):
            with pytest.raises(SessionExpired, match="not used for as long as its ttl"):
                made.sessions.get(gone.id)
        assert made.sessions.list("", "", 9)[0] == [kept, forked]
        assert sum(made.sessions.census().state_bytes.values()) == 2 * made.generator.state_bytes
        made.settle()
        assert gone.sequence not in made.engine.pool


def test_every_use_starts_the_ttl_again() -> None:
    with driver() as made:
        session = made.sessions.open(made.generator, ttl=60)
        made.append(session, TEXT)
        made.sessions.checkpoint(session, "a")
        for use in (
            lambda: made.complete(session),
            lambda: made.sessions.fork(session),
            lambda: made.sessions.checkpoint(session, "a"),
            lambda: made.sessions.rewind(session, "a"),
            lambda: list(map(made.ended, made.sessions.peek(session, [[1]]))),
        ):
            session.sequence.last_used -= 50
            use()
            assert made.sessions.get(session.id) is session and not session.has_expired
            session.sequence.last_used -= 50
            assert not session.has_expired
            session.touch()


def test_a_fork_at_the_last_moment_is_of_the_whole_state() -> None:
    with driver() as made:
        session = made.sessions.open(made.generator, ttl=60)
        made.append(session, TEXT)
        session.sequence.last_used -= 61
        GREEDY.check(made.complete(made.sessions.fork(session)), CONTEXT)


def test_a_session_at_work_does_not_expire() -> None:
    with driver(started=False) as made:
        session = made.sessions.open(made.generator, ttl=1)
        made.start(session, TEXT)
        session.sequence.last_used -= 100
        assert made.sessions.get(session.id) is session


def test_expired_sessions_make_room() -> None:
    with driver(session_limits=SessionLimits(max_sessions=1)) as made:
        made.sessions.open(made.generator, ttl=1).sequence.last_used -= 2
        assert made.open().number == 2
