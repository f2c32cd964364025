"""Who has a slot, as traces."""

import gc
import itertools
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssp_runtime.engine.turns import Turns
from tests.ssp_runtime.engine.turns_harness import ENDLESS, TURN, Call, Server


def test_the_longest_waiting_gets_the_next_slot() -> None:
    server = Server(2)
    server.add(*(Call(name, length=3) for name in "abcde"))
    assert [call.name for _ in range(9) for call in server.round()] == ["a", "b", "c", "d", "e"]


def test_nobody_yields_while_nobody_waits() -> None:
    server = Server(3)
    server.add(Call("a"), Call("b"), Call("c"))
    server.play(10 * TURN)
    assert server.swaps == 0


def test_a_call_whose_turn_is_over_yields_to_a_newcomer_at_once() -> None:
    server = Server(1)
    server.add(Call("endless"))
    server.play(10 * TURN + 3)
    server.add(Call("new"))
    server.round()
    assert server.names() == {"new"}


def test_a_call_is_safe_from_its_equals_for_a_turn() -> None:
    server = Server(1)
    server.add(Call("a"), Call("b"))
    seats: list[str] = []
    for _ in range(4 * TURN):
        server.round()
        seats += server.names()
    assert seats == [*"a" * TURN, *"b" * TURN] * 2


@settings(max_examples=40, deadline=None)
@given(num_slots=st.integers(1, 5), more=st.integers(1, 6), speed=st.integers(1, 40))
def test_endless_streams_of_one_owner_advance_alike(num_slots: int, more: int, speed: int) -> None:
    server = Server(num_slots)
    server.add(*(Call(speed=speed) for _ in range(num_slots + more)))
    server.play(20 * TURN)
    computed = [call.computed for call in server.calls]
    assert max(computed) - min(computed) < TURN + speed


def test_turns_that_end_together_swap_only_as_many_as_wait() -> None:
    server = Server(8)
    server.add(*(Call() for _ in range(9)))
    server.play(10 * TURN)
    assert server.swaps == 9


def test_a_better_priority_takes_the_newest_slot_of_the_worst_at_once() -> None:
    server = Server(3)
    server.add(Call("normal"), Call("old", priority=5), Call("new", priority=5))
    server.round()
    server.add(Call("urgent", priority=-1))
    server.round()
    assert server.names() == {"urgent", "normal", "old"}


def test_a_preempted_call_comes_back_before_its_equals() -> None:
    server = Server(1)
    server.add(Call("first", priority=5), Call("second", priority=5))
    server.play(2)
    server.add(Call("urgent", length=1))
    server.round()
    server.round()
    assert server.names() == {"first"}


def test_a_preempted_call_is_charged_for_what_it_computed_only() -> None:
    server = Server(1)
    server.add(Call(owner="preempted", priority=5))
    for _ in range(TURN // 2):
        server.round()
        server.add(Call(length=1))
        server.round()
    server.add(*(Call(owner="other", priority=5, length=2) for _ in range(50)))
    server.play(TURN)
    assert server.served["preempted"] >= TURN - 2


def test_a_worse_priority_waits_for_ever() -> None:
    server = Server(1)
    server.add(Call("endless"), Call("idle", priority=1, length=1))
    server.play(10 * TURN)
    assert server.names() == {"endless"} and server.swaps == 0


def test_a_turn_that_is_over_is_no_reason_to_yield_to_a_worse_priority() -> None:
    server = Server(2)
    server.add(Call("a"), Call("b"))
    server.play(2 * TURN)
    server.add(Call("worse", priority=1))
    server.play(2 * TURN)
    assert server.names() == {"a", "b"}


def test_an_owner_with_many_streams_leaves_another_its_slot() -> None:
    server = Server(2)
    server.add(*(Call(owner="many") for _ in range(10)), Call("single", owner="one"))
    server.play(100 * TURN)
    assert server.served["one"] >= server.served["many"] - 3 * TURN
    assert server.swaps <= 102, "the single stream swaps with the many"


def test_many_who_wait_first_do_not_get_all_slots() -> None:
    server = Server(4)
    server.add(*(Call(owner="many") for _ in range(10)), *(Call(owner="few") for _ in range(2)))
    server.round()
    assert Counter(call.owner for call in server.seated) == {"many": 2, "few": 2}


def backlog(server: Server, owner: str, lengths: Iterator[int], speed: int) -> None:
    """Keeps more of an owner's calls waiting than there are slots."""
    while sum(call.owner == owner for call in server.calls) <= 2 * server.num_slots:
        server.add(Call(owner=owner, length=next(lengths), speed=speed))


LENGTHS = st.lists(st.sampled_from([1, 2, 5, 3 * TURN, ENDLESS]), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(
    num_slots=st.integers(1, 4),
    owners=st.lists(st.tuples(LENGTHS, st.integers(1, 3 * TURN)), min_size=2, max_size=4),
    early=st.integers(0, 10 * TURN),
)
def test_owners_that_always_wait_are_served_alike(
    num_slots: int, owners: list[tuple[list[int], int]], early: int
) -> None:
    """Whatever their calls' lengths and speeds are, and however long the first was alone."""
    server = Server(num_slots)
    queues = {str(number): (itertools.cycle(lengths), speed) for number, (lengths, speed) in enumerate(owners)}
    for _ in range(early):
        backlog(server, "0", *queues["0"])
        server.round()
    server.served.clear()
    for _ in range(15 * TURN):
        for owner, (lengths, speed) in queues.items():
            backlog(server, owner, lengths, speed)
        server.round()
    fastest = max(speed for _, speed in owners)
    slack = TURN * (2 * num_slots + 1) + 2 * num_slots * fastest
    served = [server.served[owner] for owner in queues]
    assert max(served) - min(served) <= slack


@pytest.mark.parametrize("tokens", [TURN // 2, 10 * TURN])
def test_a_caller_in_series_gets_no_more_than_its_share(tokens: int) -> None:
    server = Server(1)
    server.add(*(Call(owner="many", length=20, speed=20) for _ in range(400)))
    for _ in range(300):
        if not any(call.owner == "series" for call in server.calls):
            server.add(Call(owner="series", length=tokens, speed=tokens))
        server.round()
    assert server.served["series"] <= server.served["many"] + 10 * TURN


def test_absence_saves_up_nothing() -> None:
    """Also when the line is empty on return, for the other's last call has the slot."""
    server = Server(1)
    server.add(*(Call(owner="present", length=20) for _ in range(10)))
    while server.turns.num_waiting:
        server.round()
    server.add(*(Call(owner=owner, length=TURN) for owner in ("absent", "present") for _ in range(20)))
    server.served.clear()
    server.play(10 * TURN)
    assert server.served["present"] >= 4 * TURN


def test_a_newcomer_does_not_wait_behind_what_short_calls_were_charged_in_advance() -> None:
    server = Server(4)
    server.add(*(Call(owner="short", length=1) for _ in range(100)))
    server.play(5)
    server.add(Call("new", owner="new"))
    server.play(3)  # at one token a call, it is behind four at most
    assert "new" in server.names()


def test_nothing_is_owed_when_everyone_has_left() -> None:
    server = Server(1)
    server.add(Call("first", owner="x", length=10 * TURN), Call("second", owner="y", length=1))
    server.play(11 * TURN)
    assert not server.calls
    server.add(Call("first", owner="x"), Call("second", owner="y"))
    server.round()
    assert server.names() == {"first"}


def test_who_rests_gives_the_slot_back_and_may_return() -> None:
    server = Server(1)
    call, other = Call("a"), Call("b")
    server.add(call, other)
    server.round()
    server.turns.rest(call)
    assert server.turns.turnover(server.now) == ([], [other])
    server.turns.rest(other)
    server.turns.add(call)
    assert server.turns.turnover(server.now) == ([], [call])


def test_who_rests_is_charged_for_what_was_computed_only() -> None:
    turns: Turns[Call] = Turns(1, TURN)
    restless, others = Call(owner="restless"), [Call(owner="other", length=2) for _ in range(30)]
    for call in [restless, *others]:
        turns.add(call)
    tokens: Counter[str] = Counter()
    for now in range(40):  # both compute one token at a time, the one resting after it, the others ending
        for call in turns.turnover(now).entering:
            turns.computed(call, 1)
            tokens[call.owner] += 1
            turns.rest(call)
            if call is restless:
                turns.add(call)
            else:
                turns.forget(call)
    assert tokens["restless"] == pytest.approx(tokens["other"], abs=1)


def test_a_late_call_gets_no_slot_and_loses_the_one_it_has() -> None:
    turns: Turns[Call] = Turns(1, TURN)
    seated, waiting, resting = (Call(name, deadline=5.0) for name in ("seated", "waiting", "resting"))
    patient = Call("patient", deadline=100.0)
    for call in (seated, waiting, resting, patient, Call("without")):
        turns.add(call)
    turns.rest(resting)
    assert turns.turnover(1.0).entering == [seated]
    assert turns.late(5.0) == []
    assert turns.late(5.1) == [seated, waiting, resting]
    assert turns.turnover(5.1) == ([], [patient]) and turns.num_waiting == 1


def test_calls_are_late_in_the_order_of_their_deadlines_and_once() -> None:
    turns: Turns[Call] = Turns(1, TURN)
    calls = [Call(deadline=float(seconds)) for seconds in (3, 1, 2, 2, 9)]
    for call in calls:
        turns.add(call)
    turns.forget(calls[2])
    late = turns.late(4.0)
    assert late == [calls[1], calls[3], calls[0]]
    for call in late:
        turns.forget(call)
    assert turns.late(4.0) == []


def test_a_forgotten_call_leaves_nothing_behind() -> None:
    turns: Turns[Call] = Turns(2, TURN)
    calls = [Call(owner=str(number % 3), priority=number % 2, deadline=float(number)) for number in range(12)]
    for call in calls:
        turns.add(call)
    turns.turnover(0.0)
    turns.rest(calls[5])
    turns.add(calls[5])
    turns.rest(calls[6])
    left = [weakref.ref(call) for call in calls]
    for call in calls:
        turns.forget(call)
        turns.forget(call)
    calls.clear()
    del call
    gc.collect()
    assert not any(reference() for reference in left)
    assert turns.num_waiting == 0 and turns.late(100.0) == [] and turns.turnover(100.0) == ([], [])


STEPS = st.lists(
    st.one_of(
        st.builds(
            Call,
            owner=st.sampled_from("abc"),
            priority=st.integers(-1, 1),
            length=st.sampled_from([1, 3, TURN, 50, ENDLESS]),
            speed=st.sampled_from([1, 7, 100]),
        ),
        st.none(),  # a round
        st.integers(0, 99),  # a call is cancelled
    ),
    max_size=60,
)


@settings(deadline=None)
@given(num_slots=st.integers(1, 3), steps=STEPS)
def test_the_laws_hold_whatever_comes(num_slots: int, steps: list[Call | int | None]) -> None:
    server = Server(num_slots)
    for step in steps:
        if isinstance(step, Call):
            server.add(step)
        elif step is None:
            server.round()
        elif server.calls:
            server.end(server.calls[step % len(server.calls)])
    for call in list(server.calls):
        if call.length == ENDLESS:
            server.end(call)
    server.play(sum(call.length for call in server.calls) + 1)
    assert not server.calls, "a call starved"


def test_a_round_looks_at_few_of_many_that_wait() -> None:
    server = Server(4)
    server.add(*(Call(owner=str(number), deadline=1e9 + number) for number in range(10_000)))
    server.turnover()
    num_calls = 0

    def count_calls(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal num_calls
        num_calls += event == "call"

    for call in server.seated:
        server.turns.computed(call, TURN)
    sys.setprofile(count_calls)
    try:
        server.turns.late(1.0)
        _, entering = server.turns.turnover(1.0)
    finally:
        sys.setprofile(None)
    assert len(entering) == 4 and num_calls < 1000


def test_a_retry_is_hinted_for_when_those_before_will_have_ended() -> None:
    server = Server(2)
    server.add(*(Call(length=4) for _ in range(1000)))
    server.play(400)  # one ends every two seconds
    assert server.turns.retry_after(10) == pytest.approx(20, rel=0.05)


def test_time_in_which_nobody_waits_says_nothing_of_the_pace() -> None:
    server = Server(1)
    server.add(*(Call(length=1) for _ in range(300)))
    server.play(300)
    hint = server.turns.retry_after(5)
    server.now += 100_000
    server.add(Call())
    server.play(100)
    assert server.turns.retry_after(5) == hint == pytest.approx(5, rel=0.02)


@pytest.mark.parametrize(("num_waiting", "seconds"), [(0, 0.1), (10**9, 60.0)])
def test_a_retry_hint_is_bounded(num_waiting: int, seconds: float) -> None:
    assert Turns[Call](1, TURN).retry_after(num_waiting) == seconds
