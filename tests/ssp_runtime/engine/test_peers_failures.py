"""What went wrong in other servers, tried on this engine. Each test names whom it happened to."""

import random
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.prefix_cache import STRIDE, Prefixes
from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.state_pool import StatePool
from ssp_runtime.errors import SessionExpired
from ssp_runtime.state import State, initial_state
from tests.ssp_runtime.engine.engine_harness import GREEDY, Driver, driver, params, tiny_model

BOS = 0
LONG = [(11 * i) % 256 for i in range(1200)]


def row_of(made: Driver, sequence: Sequence) -> Tensor:
    """The bytes of its state as it is now."""
    row = made.engine.copied(sequence).result().spilled
    assert row is not None
    return row


def state_after(tokens: list[int]) -> State:
    """The model's own, computed in one piece."""
    with torch.inference_mode():
        model = tiny_model()
        state = model.fold(torch.tensor([tokens]), model.initial_state(1))
    return {name: tensor[0] for name, tensor in state.items()}


def distance(made: Driver, row: Tensor | None, state: State) -> float:
    """How far apart two states are, at most."""
    kept = made.engine.pool.tensors(row)
    return max(float((kept[name].double() - state[name].double()).abs().max()) for name in state)


def check(made: Driver, sequence: Sequence, said: list[int], context: list[int]) -> None:
    """It said what it would alone, and its state is that of these tokens: words alone may hide that it is another's."""
    GREEDY.check(said, context)
    copy = made.engine.copied(sequence).result()
    assert copy.position == len(context) + len(said)
    assert distance(made, copy.spilled, state_after([*context, *said][: copy.folded])) < 1e-3


def assert_all_are_told_apart(made: Driver, count: int) -> None:
    """So many new sequences at once, each with its own tokens."""
    sequences = [made.sequence() for _ in range(count)]
    calls = [made.submit(sequence, [BOS, i, 99]) for i, sequence in enumerate(sequences)]
    made.finish(*calls)
    for i, (sequence, call) in enumerate(zip(sequences, calls, strict=True)):
        check(made, sequence, made.tokens(call), [BOS, i, 99])


# Slots


def test_a_slot_is_not_freed_twice_on_cancel_and_timeout() -> None:
    """Triton #7117: the slot came free twice, and two clients then shared a state."""
    with driver(slots=2) as made:
        bystander = made.sequence()
        said = made.complete(bystander, [8], max_tokens=4)
        deadline = time.monotonic() + 0.3
        victim = made.generator.new_sequence(kept=False)
        call = made.generator.new_call(victim, [5], params(max_tokens=10_000), CallOptions(deadline=deadline))

        def everything_at_once(one: Call) -> None:
            if one is call and one.num_generated == 3:
                for end in (made.engine.cancel, made.engine.cancel):
                    end(call)
                made.engine.discard(victim)
                while time.monotonic() <= deadline:  # the engine finds it late, cancelled and discarded in one round
                    time.sleep(0.01)

        made.hooks.on_token = everything_at_once
        made.generator.submit(call)
        assert made.ended(call).finish_reason is FinishReason.ABORT
        made.hooks.reset()
        made.settle()
        assert made.engine.pool.owners() == [bystander]
        assert_all_are_told_apart(made, 2)
        check(made, bystander, said + made.complete(bystander, max_tokens=4), [BOS, 8])


def test_a_close_leaks_no_slot() -> None:
    """SGLang #23496: closing a session left its slot behind."""
    with driver(slots=3, max_ahead=4) as made:
        for _ in range(3):
            idle, paused, forked = made.open(), made.open(), made.open()
            made.append(idle, [1, 2])
            made.sessions.checkpoint(idle, "kept")
            branch = made.sessions.fork(idle)
            made.append(forked, [3])
            call = made.start(paused, [4], max_tokens=100)
            made.wait(lambda call=call: call.num_unread == 4)  # type: ignore[misc]  # bound now
            waiting = [made.open() for _ in range(4)]
            for session in waiting:
                made.start(session, LONG, max_tokens=100)
            for session in (idle, paused, branch, forked, *waiting):
                made.sessions.close(session.id)
        made.settle()
        census = made.sessions.census()
        assert made.engine.pool.num_used == 0 and not census.state_bytes and not census.sessions
        assert_all_are_told_apart(made, 3)


@pytest.mark.parametrize("quantum", [None, 4])
def test_a_freed_slot_is_reset_before_its_next_tenant(quantum: int | None) -> None:
    """vLLM #56524: a freed slot was not zeroed, and the next tenant inherited the state."""
    with driver(slots=4, quantum=quantum) as made:
        for _ in range(2):
            made.finish(*(made.submit(made.generator.new_sequence(kept=False), [i, 7]) for i in range(4)))
        made.engine.stop()
        pool = made.engine.pool
        assert pool.num_used == 0
        initial = initial_state(tiny_model().state_spec, 4, torch.float32, torch.device("cpu"))
        if quantum is None:  # else free rows are the scratch of padded steps
            assert all(torch.equal(tensor, initial[name]) for name, tensor in pool.first(4).items())
        for i in range(4):
            pool.place(i)
        assert all(torch.equal(tensor, initial[name]) for name, tensor in pool.first(4).items())


def test_more_sequences_than_the_pool_holds() -> None:
    """vLLM #49064 refused to start with more sequences than states; TensorRT-LLM #13179 crashed."""
    with driver(slots=2, turn_tokens=4) as made:
        sessions = [made.open() for _ in range(15)]
        calls = [made.start(session, [BOS, i, 7], max_tokens=9) for i, session in enumerate(sessions)]
        made.finish(*calls)
        again = [made.start(session, [8], max_tokens=9) for session in reversed(sessions)]
        made.finish(*again)
        assert made.engine.pool.num_used == 2 and made.sessions.census().sessions["host", "idle"] == 13
        for i, (first, second) in enumerate(zip(calls, reversed(again), strict=True)):
            context = [BOS, i, 7]
            GREEDY.check(made.tokens(first), context)
            check(made, sessions[i].sequence, made.tokens(second), [*context, *made.tokens(first), 8])


def test_pinned_sessions_do_not_deadlock() -> None:
    """SGLang #27024: sessions that could not be evicted held every slot, and new calls waited for ever."""
    with driver(slots=3, max_ahead=4) as made:
        pinned = [made.open() for _ in range(3)]
        lagging = [made.start(session, [BOS, i, 7], max_tokens=20) for i, session in enumerate(pinned)]
        made.wait(lambda: all(call.num_unread == 4 for call in lagging))
        assert_all_are_told_apart(made, 6)
        for i, (session, call) in enumerate(zip(pinned, lagging, strict=True)):
            check(made, session.sequence, made.finish(call), [BOS, i, 7])


# Rows


class Watched:
    """What each step was given, and how many states were moved between it and the one before."""

    def __init__(self, made: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[int, int]] = []  # (rows, moves before)
        self._pool, self._moves = made.engine.pool, 0
        self._first = {name: tensor.data_ptr() for name, tensor in made.engine.pool.first(1).items()}
        for name in ("_swap", "copied", "load", "place"):
            monkeypatch.setattr(StatePool, name, self._counted(getattr(StatePool, name)))
        monkeypatch.setattr(tiny_model(), "step", self._watched(tiny_model().step))

    def _counted(self, move: Callable[..., Any]) -> Callable[..., Any]:
        def counted(pool: StatePool, *arguments: Any) -> Any:
            self._moves += arguments[:1] != arguments[1:]  # a row swapped with itself stays
            return move(pool, *arguments)

        return counted

    def _watched(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def watched(inputs_R: Tensor, state: State, *, out: State) -> Any:
            if len(inputs_R) != self._pool.num_running:
                return step(inputs_R, state, out=out)  # of what the engine is compared with
            assert state is out, "not in place"
            assert {name: tensor.data_ptr() for name, tensor in state.items()} == self._first, "not from slot 0 on"
            assert all(len(tensor) == self._pool.num_running for tensor in state.values())
            assert all(tensor.stride(0) * tensor.itemsize == self._pool.row_bytes for tensor in state.values())
            self.steps.append((len(inputs_R), self._moves))
            self._moves = 0
            return step(inputs_R, state, out=out)

        return watched


def test_running_rows_are_adjacent_whatever_the_order_of_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp #25840: four times slower once the slots in use were not adjacent. Here they always are, at a move for
    each sequence that ends and none for a token."""
    lengths = random.Random(0).sample(range(10, 70, 5), 12)
    with driver(slots=12, max_ahead=100, started=False) as made:
        watched = Watched(made, monkeypatch)
        calls = [made.submit(made.sequence(), [i, 7], max_tokens=count) for i, count in enumerate(lengths)]
        made.engine.start()  # has them all at once
        made.finish(*calls)
        made.engine.stop()
    last = watched.steps[-max(lengths) + 12 :]  # all have begun
    assert {rows for rows, _ in last} >= set(range(1, 8))
    for (before, _), (rows, moves) in pairwise(last):
        assert moves <= before - rows, "states were moved though nobody ended"


def test_rows_are_not_swapped_when_they_finish_at_different_times() -> None:
    """rwkv_lightning #22: when sequences of a batch ended at different times, others went on with their states."""
    for seed in range(3):
        order = random.Random(seed).sample(range(8), 8)
        with driver(slots=8) as made:
            sequences = [made.sequence() for _ in order]
            calls = [
                made.submit(sequence, [BOS, i, 7], max_tokens=2 + 3 * order[i]) for i, sequence in enumerate(sequences)
            ]
            made.finish(*calls)
            for i, (sequence, call) in enumerate(zip(sequences, calls, strict=True)):
                check(made, sequence, made.tokens(call) + made.complete(sequence, max_tokens=4), [BOS, i, 7])


@pytest.mark.parametrize("running", [1, 3])
def test_padding_never_advances_a_state(running: int) -> None:
    """vLLM #55178 and TGI: rows or tokens of padding moved states on. Here steps are padded to 4 rows."""
    with driver(slots=8, quantum=4, max_ahead=4) as made:
        idle, lagging = made.sequence(), made.sequence()
        made.complete(idle, [1, 2, 3])
        paused = made.submit(lagging, [4], max_tokens=30)
        made.wait(lambda: paused.num_unread == 4)
        before = [row_of(made, idle), row_of(made, lagging)]
        made.finish(*(made.submit(made.sequence(), [i], max_tokens=20) for i in range(running)))
        for sequence, row in zip((idle, lagging), before, strict=True):
            assert torch.equal(row_of(made, sequence), row)
        assert (idle.position, lagging.position) == (4 + 12, 2 + 4)
        GREEDY.check(made.finish(paused), [BOS, 4])


# What is kept of states


@pytest.mark.parametrize(("piece", "quantum"), [(100, None), (2048, None), (100, 4)])
def test_a_snapshot_is_taken_at_its_token(piece: int, quantum: int | None) -> None:
    """SGLang #33450: a state was kept under more, or fewer, tokens than it had seen."""
    tokens = [BOS, *LONG[1:]]
    with driver(piece=piece, quantum=quantum, prefix_bytes=1 << 24) as made:
        call = made.submit(made.sequence(), tokens, max_tokens=1)
        made.finish(call)
        kept: dict[int, Tensor] = {}
        for count in range(1, len(tokens)):
            found = made.engine.prefixes.find(Prefixes("", tokens[: count + 1]))
            if found is not None:
                kept.setdefault(*found)
        ends = {100: [600, 1199], 2048: [1199]}[piece] if quantum is None else [STRIDE, 2 * STRIDE, 1199]
        assert sorted(kept) == ends
        for count, row in kept.items():
            here, beside = state_after(tokens[:count]), state_after(tokens[: count - 1])
            assert distance(made, row, here) < 1e-3 < distance(made, row, beside)


def test_a_copy_of_a_call_under_way_is_taken_at_its_token() -> None:
    """SGLang #33450 again, for the copies that commits, exports and forks of running calls are made of."""
    with driver(piece=100, max_ahead=1000) as made:
        session = made.open()
        copies = [made.engine.copied(session.sequence)]
        again = lambda *_: copies.append(made.engine.copied(session.sequence))  # noqa: E731  # one line, two hooks
        made.hooks.on_prefilled = made.hooks.on_token = again
        made.complete(session, LONG, max_tokens=20)
        made.hooks.reset()
        text = [*LONG, *GREEDY.tokens(LONG, 20)]
        places = set()
        for copy in (each.result() for each in copies):
            if copy.folded:
                assert distance(made, copy.spilled, state_after(text[: copy.folded])) < 1e-3
                assert copy.pending == text[copy.folded]
                places.add(copy.position)
        assert len(places) >= 12 + 19 - 2


def test_what_is_restored_is_reused() -> None:
    """llama.cpp #25913 and #27813: the restore succeeded, and the whole prompt was computed again."""
    with driver(slots=1, prefix_bytes=1 << 24) as made:
        folded: list[int] = []
        made.hooks.on_prefilled = folded.append
        first = made.submit(made.sequence(), LONG, max_tokens=4)
        tokens = made.finish(first)
        assert (first.cached_tokens, sum(folded)) == (0, len(LONG) - 1)
        prefix = made.submit(made.sequence(), LONG, max_tokens=4)
        assert made.finish(prefix) == tokens
        assert (prefix.cached_tokens, sum(folded)) == (len(LONG) - 1, len(LONG) - 1), "a kept prefix"
        longer = made.ended(made.append_to(made.sequence(), [*LONG, 1, 2, 3]))
        assert (longer.cached_tokens, sum(folded)) == (len(LONG) - 1, len(LONG) - 1 + 3)
        session, restores = made.open(), made.hooks.restores
        made.append(session, [7] * 300)
        made.settle()  # takes the only slot
        folded.clear()
        resumed = made.start(session, [8, 9], max_tokens=1)
        made.finish(resumed)
        assert made.hooks.restores > restores and (resumed.cached_tokens, sum(folded)) == (301, 2), "a spilled session"


def test_no_state_leaks_between_unrelated_requests() -> None:
    """RWKV-Runner #441: a request went on from the state that another user's had left."""
    prompts = [[3, 3, 3], [3, 3], [3, 3, 3, 3], [4], [9, 3, 3, 3], [3, 3, 3]]
    with driver(slots=2, prefix_bytes=1 << 24) as made:
        for round_ in range(2):
            calls = []
            for i, prompt in enumerate(prompts):
                options = CallOptions(owner=str(i % 2))
                one = made.generator.new_call(made.sequence(), prompt, params(), options)
                made.generator.submit(one)
                calls.append(one)
            made.finish(*calls)
            for prompt, call in zip(prompts, calls, strict=True):
                check(made, call.sequence, made.tokens(call), [BOS, *prompt])
            if round_:
                assert all(call.cached_tokens == len(prompt) for prompt, call in zip(prompts, calls, strict=True))
        stranger = made.generator.new_call(made.sequence(), prompts[0], None, CallOptions(owner="another"))
        made.generator.submit(stranger)
        assert made.ended(stranger).cached_tokens == 0


# Time, connections, forms


def test_idling_loses_no_state() -> None:
    """Triton: a sequence that was idle for `max_sequence_idle_microseconds` lost its state."""
    with driver(slots=1) as made:
        session, limited = made.open(), made.sessions.open(made.generator, ttl=60.0)
        for each in (session, limited):
            made.append(each, [5, 6])
            each.sequence.last_used -= 10 * 365 * 86_400
        made.settle()
        assert made.sessions.list("", "", 10)[0] == [session]
        check(made, session.sequence, made.complete(made.sessions.get(session.id)), [BOS, 5, 6])
        with pytest.raises(SessionExpired):
            made.sessions.get(limited.id)


@pytest.mark.parametrize("lost_after", [0, 3, 12])
def test_a_lost_connection_does_not_advance_a_state_twice(lost_after: int) -> None:
    """Triton #3160: the client sent its request again, and the state took it in twice."""
    with driver(max_ahead=4) as made:
        session = made.open()
        made.append(session, [5], request_id="append")
        made.append(session, [5], request_id="append")
        assert session.sequence.position == 2
        lost = made.start(session, [6], request_id="generate")
        if lost_after == 12:
            made.finish(lost)
        else:
            made.wait(lambda: lost.num_unread >= lost_after)
            made.engine.cancel(lost)
            made.ended(lost)
        again = made.start(session, [6], request_id="generate")
        check(made, session.sequence, made.finish(again), [BOS, 5, 6])


@pytest.mark.parametrize("quantum", [None, 4])
def test_prefill_and_decode_agree(quantum: int | None) -> None:
    """vLLM #55524: a state differed by whether its tokens were read as a prompt or generated."""
    with driver(quantum=quantum, max_ahead=1000) as made:
        generating = made.sequence()
        said = made.complete(generating, [5, 6], max_tokens=100)
        reading = made.sequence()
        made.ended(made.append_to(reading, [5, 6, *said]))
        assert reading.position == generating.position and reading.pending == generating.pending
        rows = row_of(made, generating), row_of(made, reading)
        pool = made.engine.pool
        largest = max(float(tensor.abs().max()) for tensor in pool.tensors(rows[0]).values())
        assert distance(made, rows[1], pool.tensors(rows[0])) <= 1e-5 * largest
        assert quantum is None or torch.equal(*rows)
        GREEDY.check(said + made.complete(reading, max_tokens=20), [BOS, 5, 6])
