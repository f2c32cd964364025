"""Sessions forked, kept under names and put back: each goes on as if nothing had been, wherever its state lies."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from ssp_runtime.errors import Exhausted, InvalidRequest, PositionMismatch, SessionBusy, StateCorrupt, UnknownCheckpoint
from ssp_runtime.sessions.roster import SessionLimits
from ssp_runtime.sessions.session import Session
from tests.ssp_runtime.engine.engine_harness import GREEDY, driver

TEXT = list(b"the quick brown fox")
CONTEXT = [0, *TEXT]


@pytest.mark.parametrize("slots", [1, 8])
def test_a_fork_and_its_session_go_their_own_ways(slots: int) -> None:
    with driver(slots=slots) as made:
        session = made.open()
        made.append(session, TEXT)
        said = made.complete(session, max_tokens=5)
        forked = made.sessions.fork(session, routing_key="branch")
        assert forked.id.startswith("branch.") and forked.sequence.position == session.sequence.position == 25
        aside = made.complete(forked, [7, 8], max_tokens=6)
        GREEDY.check(said + made.complete(session, max_tokens=6), CONTEXT)
        GREEDY.check(aside, [*CONTEXT, *said, 7, 8])
        again = made.sessions.fork(forked)
        made.sessions.close(forked.id)
        GREEDY.check(made.complete(again, max_tokens=6), [*CONTEXT, *said, 7, 8, *aside])


def test_a_fork_of_a_new_session() -> None:
    with driver() as made:
        forked = made.sessions.fork(made.open())
        GREEDY.check(made.complete(forked, TEXT), CONTEXT)


def test_a_fork_draws_as_its_session_does() -> None:
    sampling: dict[str, Any] = {"temperature": 1.0, "seed": 3, "repetition_penalty": 1.3, "max_tokens": 12}
    with driver() as made:
        session = made.open()
        made.complete(session, TEXT, **sampling)
        forked = made.sessions.fork(session)
        assert made.complete(forked, **sampling) == made.complete(session, **sampling)


def test_half_a_character_is_finished_in_either() -> None:
    with driver() as made:
        session = made.open()
        made.complete(session, TEXT, logit_bias={0xC3: 100.0}, max_tokens=1)
        forked = made.sessions.fork(session)
        texts = []
        for each in (session, forked):
            call = made.start(each, logit_bias={0xA9: 100.0}, max_tokens=1)
            made.finish(call)
            texts.append(made.text(call))
        assert texts == ["é", "é"]


def test_a_retried_fork_is_the_same_session() -> None:
    with driver() as made:
        session = made.sessions.open(made.generator, request_id="a")
        forked = made.sessions.fork(session, request_id="a")
        assert forked is not session
        assert made.sessions.fork(session, request_id="a") is forked
        assert made.sessions.fork(session, request_id="b") is not forked


@pytest.mark.parametrize("slots", [1, 8])
def test_a_session_is_rewound_as_often_as_one_likes(slots: int) -> None:
    with driver(slots=slots) as made:
        session, other = made.open(), made.open()
        made.append(session, TEXT)
        made.sessions.checkpoint(session, "here")
        version = session.sequence.version
        for _ in range(3):
            said = made.complete(session, [9], max_tokens=6)
            GREEDY.check(said, [*CONTEXT, 9])
            made.complete(other, [1], max_tokens=2)
            made.sessions.rewind(session, "here")
            assert (session.sequence.position, session.sequence.settled) == (20, 20)
        assert session.sequence.version == version + 6
        GREEDY.check(made.complete(session), CONTEXT)


def test_a_checkpoint_of_a_name_replaces_the_one_before() -> None:
    with driver() as made:
        session = made.open()
        made.append(session, TEXT[:9])
        made.sessions.checkpoint(session, "a")
        made.append(session, TEXT[9:])
        made.sessions.checkpoint(session, "a")
        made.complete(session)
        made.sessions.rewind(session, "a")
        GREEDY.check(made.complete(session), CONTEXT)
        made.sessions.drop_checkpoint(session, "a")
        with pytest.raises(UnknownCheckpoint, match="no checkpoint 'a'; there are: none"):
            made.sessions.rewind(session, "a")


def test_a_lost_state_comes_back_by_a_rewind() -> None:
    with driver() as made:
        session = made.open()
        made.append(session, TEXT)
        made.sessions.checkpoint(session, "sound")
        session.sequence.broken = True
        for refused in (made.sessions.fork, lambda s: made.sessions.checkpoint(s, "b"), made.start):
            with pytest.raises(StateCorrupt, match="rewind it to a checkpoint"):
                refused(session)
        made.sessions.rewind(session, "sound")
        GREEDY.check(made.complete(session), CONTEXT)


def test_what_was_not_delivered_is_dropped_by_a_rewind() -> None:
    with driver() as made:
        session = made.open()
        made.append(session, TEXT)
        made.sessions.checkpoint(session, "here")
        made.ended(made.start(session, max_tokens=5))  # nobody takes its tokens
        made.sessions.rewind(session, "here")
        GREEDY.check(made.complete(session, max_tokens=5), CONTEXT)


def test_refusals() -> None:
    with driver(started=False) as made:
        session = made.open()
        made.sessions.checkpoint(session, "a")
        for wrong in (
            lambda: made.sessions.fork(session, expected_position=3),
            lambda: made.sessions.checkpoint(session, "b", expected_position=3),
            lambda: made.sessions.rewind(session, "a", expected_position=3),
        ):
            with pytest.raises(PositionMismatch, match="stands at position 0, not at 3"):
                wrong()
        with pytest.raises(InvalidRequest, match="1 to 64 letters"):
            made.sessions.checkpoint(session, "no spaces")
        made.start(session, TEXT)
        for busy in (
            lambda: made.sessions.fork(session),
            lambda: made.sessions.checkpoint(session, "b"),
            lambda: made.sessions.rewind(session, "a"),
        ):
            with pytest.raises(SessionBusy):
                busy()


def test_checkpoints_and_forks_count_as_states() -> None:
    with driver(started=False) as made:
        room = made.generator.state_bytes * 3
    with driver(session_limits=SessionLimits(max_state_bytes=room)) as made:
        session = made.open()
        made.sessions.checkpoint(session, "a")
        made.sessions.checkpoint(session, "a")
        forked = made.sessions.fork(session)
        for too_much in (
            lambda: made.sessions.checkpoint(session, "b"),
            lambda: made.sessions.fork(session),
            made.open,
        ):
            with pytest.raises(Exhausted, match="fill the memory"):
                too_much()
        assert sum(made.sessions.census().state_bytes.values()) == room
        made.sessions.drop_checkpoint(session, "a")
        made.sessions.close(forked.id)
        made.sessions.checkpoint(session, "b")
        made.sessions.close(session.id)
        assert len([made.open() for _ in range(3)]) == 3


class Histories(RuleBasedStateMachine):
    """Any order of calls, against what the tokens of each session say."""

    sessions: Bundle[Session] = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self._context = driver(slots=2)
        self.made = self._context.__enter__()
        self.tokens: dict[Session, list[int]] = {}
        self.kept: dict[Session, list[int]] = {}

    def teardown(self) -> None:
        self._context.__exit__(None, None, None)

    @rule(target=sessions)
    def open(self) -> Session:
        session = self.made.open()
        self.tokens[session] = [0]
        return session

    @rule(session=sessions, prompt=st.lists(st.integers(1, 9), min_size=1, max_size=5))
    def append(self, session: Session, prompt: list[int]) -> None:
        self.made.append(session, prompt)
        self.tokens[session] += prompt

    @rule(session=sessions, count=st.integers(1, 4))
    def generate(self, session: Session, count: int) -> None:
        if len(self.tokens[session]) > 1:
            said = self.made.complete(session, max_tokens=count)
            GREEDY.check(said, self.tokens[session])
            self.tokens[session] += said

    @rule(target=sessions, session=sessions)
    def fork(self, session: Session) -> Session:
        forked = self.made.sessions.fork(session)
        self.tokens[forked] = [*self.tokens[session]]
        return forked

    @rule(session=sessions)
    def checkpoint(self, session: Session) -> None:
        self.made.sessions.checkpoint(session, "c")
        self.kept[session] = [*self.tokens[session]]

    @rule(session=sessions)
    def rewind(self, session: Session) -> None:
        if session in self.kept:
            self.made.sessions.rewind(session, "c")
            self.tokens[session] = [*self.kept[session]]

    @rule(session=consumes(sessions))
    def close(self, session: Session) -> None:
        self.made.sessions.close(session.id)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
