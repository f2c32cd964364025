"""Tokens are looked at a chunk at a time, and nobody can tell but by when they come."""

from collections.abc import Iterator

import pytest

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.chunks import Chunking
from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.engine.sequence import Sequence
from tests.ssp_runtime.engine.engine_harness import GREEDY, Driver, driver, params

LATE = Chunking(max_tokens=8, max_delay=3600.0)
BOS = 0


@pytest.fixture
def made() -> Iterator[Driver]:
    with driver() as made:
        yield made


def submit(made: Driver, sequence: Sequence, **sampling: object) -> Call:
    call = made.generator.new_call(sequence, [1], params(**sampling), CallOptions(chunking=LATE))
    made.generator.submit(call)
    return call


def text_of(tokens: list[int]) -> str:
    return bytes(tokens).decode(errors="replace")


def test_chunks_are_full_but_for_the_first_and_the_last(made: Driver) -> None:
    call = submit(made, made.sequence(), max_tokens=20)
    made.ended(call)
    taken = call.take(1000)
    assert [len(progress.token_ids) for progress in taken] == [1, 8, 8, 3]
    tokens = [token for progress in taken for token in progress.token_ids]
    GREEDY.check(tokens, [BOS, 1])
    assert [progress.position for progress in taken] == [3, 11, 19, 22]


def test_no_more_is_taken_than_is_asked_for_unless_it_came_as_one(made: Driver) -> None:
    call = submit(made, made.sequence(), max_tokens=20)
    made.ended(call)
    assert [sum(len(each.token_ids) for each in call.take(8)) for _ in range(4)] == [1, 8, 8, 3]
    assert not call.has_unread


@pytest.mark.parametrize("sampling", [{}, {"stop": ("zzz",)}, {"repetition_penalty": 1.2}, {"exclude_stop": True}])
def test_what_is_said_does_not_depend_on_chunks(made: Driver, sampling: dict[str, object]) -> None:
    drawn = {"temperature": 1.0, "seed": 3, "max_tokens": 50} | sampling
    chunked, single = made.sequence(), made.sequence()
    calls = [
        made.generator.new_call(sequence, [1], params(**drawn), CallOptions(chunking=chunking))
        for sequence, chunking in ((chunked, LATE), (single, Chunking()))
    ]
    made.generator.submit_all(calls)
    made.finish(*calls)
    assert made.tokens(calls[0]) == made.tokens(calls[1]) and made.text(calls[0]) == made.text(calls[1])
    assert list(chunked.recent) == list(single.recent)
    assert made.complete(chunked, [7]) == made.complete(single, [7])


@pytest.mark.parametrize("number", [2, 5, 9, 10])
def test_a_stop_is_taken_out_by_itself(made: Driver, number: int) -> None:
    """And not with what was looked at together with it."""
    drawn = {"temperature": 1.0, "seed": 11, "max_tokens": 30}
    whole = made.complete(made.sequence(), [1], **drawn)
    stop = whole[number]
    at = whole.index(stop)
    sequence = made.sequence()
    call = submit(made, sequence, stop_token_ids=frozenset({stop}), exclude_stop=True, **drawn)
    made.finish(call)
    assert made.tokens(call) == whole[: at + 1] and call.finish_reason is FinishReason.STOP
    assert sequence.position == 2 + at and [token for token, _ in sequence.recent] == [BOS, 1, *whole[:at]]


def test_a_call_that_is_cut_loses_no_token(made: Driver) -> None:
    sequence = made.sequence()
    call = submit(made, sequence, max_tokens=1000)
    made.hooks.on_token = lambda call: made.engine.cancel(call) if call.num_generated == 5 else None
    made.ended(call)
    made.finish(call)
    tokens = made.tokens(call)
    assert call.finish_reason is FinishReason.ABORT and len(tokens) == 5 == sequence.position - 2
    GREEDY.check(tokens + made.complete(sequence), [BOS, 1])


def test_a_copy_has_what_nobody_has_looked_at(made: Driver) -> None:
    copies = []
    call = submit(made, made.sequence(), max_tokens=12)
    made.hooks.on_token = lambda call: (
        copies.append(made.engine.copied(call.sequence)) if call.num_generated == 6 else None
    )
    call.sequence.last_call = call
    made.finish(call)
    (copy,) = copies
    there = copy.result(10)
    assert there.last_call is not None and len(there.recent) == there.position == 2 + 6
    assert list(there.last_call.everything().token_ids) == made.tokens(call)[:6]
    GREEDY.check(made.tokens(call), [BOS, 1])


@pytest.mark.parametrize("max_ahead", [1, 3, 8, 13])
def test_nobody_runs_further_ahead_than_he_may(made: Driver, max_ahead: int) -> None:
    options = CallOptions(chunking=Chunking(max_tokens=5, max_delay=0.0005), max_ahead=max_ahead)
    call = made.generator.new_call(made.sequence(), [1], params(max_tokens=100), options)
    made.generator.submit(call)
    furthest = 0
    while call.finish_reason is None:
        made.wait(lambda: call.num_unread >= max_ahead or call.finish_reason is not None)
        made.settle()
        furthest = max(furthest, call.num_generated - (call.num_tokens - call.num_unread))
        made.finish_some(call, 1000)
    assert furthest == max_ahead


def test_text_is_that_of_the_tokens(made: Driver) -> None:
    call = submit(made, made.sequence(), max_tokens=60, temperature=1.0, seed=1)
    made.finish(call)
    assert made.text(call) == text_of(made.tokens(call))[: len(made.text(call))]
