"""What a call may ask for besides tokens: a place in line, an end in time, a stop taken out, tokens that were lost."""

import time
from typing import Any

import pytest

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions.session import Session
from tests.ssp_runtime.engine.engine_harness import GREEDY, Driver, driver, params

TEXT = list(b"the quick brown fox")
CONTEXT = [0, *TEXT]


def start(made: Driver, session: Session, options: CallOptions, prompt: list[int] = TEXT, **sampling: Any) -> Call:
    return made.sessions.start(session, prompt, params(**sampling), options)


# Which slot, and until when


def order_of_ends(made: Driver, calls: dict[str, Call]) -> list[str]:
    """The calls' names as they end."""
    ends: list[str] = []
    names = {call: name for name, call in calls.items()}
    made.hooks.on_token = lambda call: ends.append(names[call]) if call.num_generated == 12 else None
    made.engine.start()
    made.finish(*calls.values())
    made.engine.stop()
    return ends


def test_a_call_of_better_priority_goes_first_and_takes_the_slot() -> None:
    with driver(slots=1, started=False) as made:
        calls = {
            name: start(made, made.open(), CallOptions(priority=priority))
            for name, priority in {"worst": 5, "middle": 0, "best": -3}.items()
        }
        assert order_of_ends(made, calls) == ["best", "middle", "worst"]
        for call in calls.values():
            GREEDY.check(made.tokens(call), CONTEXT)


def test_a_call_that_runs_gives_its_slot_to_a_better_one_and_goes_on_later() -> None:
    with driver(slots=1, started=False) as made:
        worse, other = start(made, made.open(), CallOptions(priority=1), max_tokens=30), made.open()
        better: list[Call] = []
        worse_had: list[int] = []

        def act(call: Call) -> None:
            if call is worse and call.num_generated == 4:
                better.append(start(made, other, CallOptions(priority=0)))
            elif call is not worse and call.num_generated == 12:
                worse_had.append(worse.num_generated)

        made.hooks.on_token = act
        made.engine.start()
        GREEDY.check(made.finish(worse), CONTEXT)
        GREEDY.check(made.finish(*better), CONTEXT)
        made.engine.stop()
        assert worse_had == [4] and made.hooks.spills >= 1


def test_endless_streams_take_turns() -> None:
    with driver(slots=1, turn_tokens=8, started=False) as made:
        first, second = (start(made, made.open(), CallOptions(), max_tokens=24) for _ in range(2))
        order: list[Call] = []
        made.hooks.on_token = order.append
        made.engine.start()
        made.finish(first, second)
        made.engine.stop()
        assert order == 3 * (8 * [first] + 8 * [second])
        for call in (first, second):
            GREEDY.check(made.tokens(call), CONTEXT)


def test_after_its_deadline_a_call_stops_and_its_session_goes_on() -> None:
    with driver() as made:
        session = made.open()
        options = CallOptions(deadline=time.monotonic() + 0.2)
        cut = made.ended(start(made, session, options, max_tokens=100_000))
        said = made.finish(cut)
        assert cut.finish_reason is FinishReason.ABORT and session.sequence.position == 20 + len(said)
        GREEDY.check(said + made.complete(session, max_tokens=4), CONTEXT)


def test_a_reader_may_ask_for_less_to_be_computed_ahead() -> None:
    with driver() as made:
        call = start(made, made.open(), CallOptions(max_ahead=3), max_tokens=20)
        made.wait(lambda: call.num_unread == 3)
        made.settle()
        assert call.num_unread == 3
        GREEDY.check(made.finish(call), CONTEXT)


# A stop taken out


@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize(
    ("said", "stop"),
    [
        ("ab\n\ndef", "\n\nd"),  # over several tokens
        ("xyz!", "!"),  # in one
        ("aaab", "aab"),  # a beginning that turned out to be none
        ("éö.", "ö."),  # of several bytes
    ],
)
def test_a_stop_text_is_taken_out_of_the_state(said: str, stop: str, slots: int) -> None:
    with driver(slots=slots) as made:
        session = made.open()
        made.append(session, TEXT)
        call = saying(made, session, said, stop=(stop,), exclude_stop=True)
        shown = said[: said.index(stop)]
        assert made.text(call) == shown and call.finish_reason is FinishReason.STOP
        assert session.sequence.position == 20 + len(shown.encode())
        following = list(b"next")
        GREEDY.check(made.complete(session, following), [*CONTEXT, *shown.encode(), *following])


def saying(made: Driver, session: Session, text: str, **sampling: Any) -> Call:
    """A call that generates just this."""
    options = CallOptions(received=tuple(text.encode()))
    call = start(made, session, options, [], max_tokens=200, **sampling)
    made.finish(call)
    return call


def test_a_stop_token_is_taken_out_of_the_state() -> None:
    with driver() as made:
        session = made.open()
        made.append(session, TEXT)
        call = saying(made, session, "ab;", stop_token_ids=frozenset(b";"), exclude_stop=True)
        assert made.text(call) == "ab" and session.sequence.position == 22
        GREEDY.check(made.complete(session, [7]), [*CONTEXT, *b"ab", 7])


def test_what_was_taken_out_must_be_followed_by_input() -> None:
    with driver() as made:
        session = made.open()
        made.append(session, TEXT)
        saying(made, session, "ab;", stop=(";",), exclude_stop=True)
        with pytest.raises(InvalidRequest, match="give at least one token"):
            made.start(session)


def test_without_the_option_a_stop_stays() -> None:
    with driver() as made:
        session = made.open()
        made.append(session, TEXT)
        saying(made, session, "ab;", stop=(";",))
        assert session.sequence.position == 23
        GREEDY.check(made.complete(session, [7]), [*CONTEXT, *b"ab;", 7])


# Tokens that were lost


def test_received_tokens_are_taken_as_they_are() -> None:
    received = (200, 3, 77)
    with driver() as made:
        session = made.open()
        call = start(made, session, CallOptions(received=received), max_tokens=9)
        said = made.finish(call)
        assert said[:3] == list(received) and len(said) == 9
        GREEDY.check(said[3:], [*CONTEXT, *received])


def test_received_tokens_that_this_server_has_are_not_taken_again() -> None:
    sampling: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_tokens": 12}
    with driver() as made:
        wanted = made.complete(made.open(), TEXT, **sampling)
        session = made.open()
        made.hooks.on_token = lambda call: made.engine.cancel(call) if call.num_generated == 5 else None
        made.ended(start(made, session, CallOptions(request_id="a"), **sampling))
        made.hooks.reset()
        retry = start(made, session, CallOptions(request_id="a", received=tuple(wanted[:8])), **sampling)
        assert made.finish(retry) == wanted
