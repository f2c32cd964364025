"""An audit tells how far a served state is from what its tokens lead to, and of which sessions it can tell that."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from ssp_runtime.engine.audit import Audit, chosen
from ssp_runtime.engine.call import Call
from ssp_runtime.engine.sequence import Sequence
from tests.ssp_runtime.engine.engine_harness import PATIENCE, Driver, driver, params, tiny_model

PROMPT = list(b"the quick brown fox")


class Found(NamedTuple):
    tokens: int
    difference: float
    largest: float


class Watched:
    """A driver whose engine tells an audit."""

    def __init__(self, made: Driver, max_tokens: int) -> None:
        self.made, self.gate = made, threading.Event()
        self.gate.set()
        self._reports: queue.Queue[Found] = queue.Queue()
        self.audit = Audit(tiny_model(), self._report, max_tokens=max_tokens)
        self.audit.attach(made.engine)
        made.hooks.audit = self.audit

    def sequence(self) -> Sequence:
        sequence = self.made.sequence()
        self.audit.watch(sequence)
        return sequence

    def found(self) -> Found:
        found = self._reports.get(timeout=PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while self.audit.is_under_way:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return found

    def audits_the_next(self) -> bool:
        """Whether nothing was audited that is not accounted for: the next to be told of is one that begins now."""
        self.made.settle()
        self.made.ended(self.made.append_to(self.sequence(), [1] * 123))
        return self.found().tokens == 123

    def _report(self, tokens: int, difference: float, largest: float) -> None:
        assert self.gate.wait(PATIENCE)
        self._reports.put(Found(tokens, difference, largest))


@contextmanager
def watched(max_tokens: int = 1000, slots: int = 4, piece: int = 7) -> Iterator[Watched]:
    with driver(slots=slots, piece=piece) as made:
        yield Watched(made, max_tokens)


def test_a_sound_state_is_what_its_tokens_lead_to() -> None:
    with watched() as here:
        sequence = here.sequence()
        for prompt, count in ((PROMPT, 30), ([7, 8], 1), ([], 40)):
            here.made.complete(sequence, prompt, max_tokens=count)
            found = here.found()
            assert found.tokens == sequence.folded and found.difference < 1e-4 and found.largest > 0.1
        here.made.ended(here.made.append_to(sequence, PROMPT))
        assert here.found().tokens == sequence.folded == 20 + 30 + 2 + 1 + 40 + 19 - 1


def test_a_state_that_was_changed_is_found() -> None:
    with watched() as here:
        sequence = here.sequence()

        def drift(call: Call) -> None:
            if call.sequence is sequence and call.num_generated == 3:
                name = next(name for name, spec in tiny_model().state_spec.items() if spec.kind == "accumulator")
                here.made.engine.pool.row(sequence)[name].add_(0.5)

        here.made.complete(sequence, PROMPT, max_tokens=2)
        assert here.found().difference < 1e-4
        here.made.hooks.on_token = drift
        here.made.complete(sequence, max_tokens=4)
        assert here.found().difference > 0.05


@pytest.mark.parametrize("exclude_stop", [False, True])
def test_tokens_that_were_not_taken_in_or_taken_back_do_not_count(exclude_stop: bool) -> None:
    with watched() as here:
        sequence = here.sequence()
        here.made.hooks.on_prefilled = lambda _: here.made.engine.cancel(cut) if sequence.folded >= 14 else None
        cut = here.made.append_to(sequence, PROMPT)
        here.made.ended(cut)
        here.made.hooks.reset()
        assert sequence.position < 20 and here.found() < Found(20, 1e-4, 0)
        here.made.complete(
            sequence, [9], max_tokens=30, logit_bias={ord("x"): 100.0}, stop=["xxxx"], exclude_stop=exclude_stop
        )
        found = here.found()
        assert found.tokens == sequence.folded and found.difference < 1e-4


def test_sequences_that_cannot_be_followed_are_left_alone() -> None:
    with watched(max_tokens=150) as here:
        sessions, generator = here.made.sessions, here.made.generator
        rewound, forked, used = here.made.open(), here.made.open(), here.made.open()
        for session in (rewound, forked):
            here.audit.watch(session.sequence)
            here.made.append(session, PROMPT)
            assert here.found().tokens == 19
        sessions.checkpoint(rewound, "here")
        here.made.complete(rewound, max_tokens=4)
        assert here.found().tokens == 20 + 3
        sessions.rewind(rewound, "here")
        here.made.complete(rewound, [5], max_tokens=4)
        assert here.audits_the_next(), "rewound"
        here.made.append(sessions.fork(forked), [5])
        here.made.append(used, PROMPT)
        here.audit.watch(used.sequence)
        here.made.append(used, PROMPT)
        assert here.audits_the_next(), "a fork, or one that had begun before"
        stepping = here.sequence()
        here.made.finish(here.made.step(stepping, [[1, 2, 3]]))
        here.made.complete(stepping, [4])
        assert here.audits_the_next(), "fed step by step"
        here.made.ended(here.made.append_to(here.sequence(), [1] * 160))
        for long in ([1] * 151, [1] * 140):
            here.made.complete(here.sequence(), long, max_tokens=30)
        assert here.audits_the_next(), "too long"
        once = generator.new_sequence(kept=False)
        here.made.complete(once, PROMPT)
        assert here.audits_the_next(), "not watched"


@pytest.mark.parametrize("action", ["close", "rewind"])
def test_what_becomes_of_a_session_as_its_call_ends_is_not_taken_for_drift(action: str) -> None:
    with watched() as here:
        session = here.made.open()
        here.audit.watch(session.sequence)
        here.made.append(session, [1] * 30)
        assert here.found().tokens == 30
        here.made.sessions.checkpoint(session, "here")
        call = here.made.generator.new_call(session.sequence, [], params(max_tokens=10))

        def act_before_the_copy_is_made() -> None:
            if action == "rewind" and call.finish_reason is not None:
                here.made.hooks.reset()
                here.made.sessions.rewind(session, "here")
            elif action == "close" and call.num_generated == 5:
                here.made.hooks.reset()
                here.made.engine.cancel(call)
                here.made.sessions.close(session.id)

        here.made.hooks.on_delivered = act_before_the_copy_is_made
        here.made.generator.submit(call)
        here.made.ended(call)
        if action == "rewind":
            found = here.found()
            assert found.tokens == 31 + 9 and found.difference < 1e-4
        assert here.audits_the_next()


def test_no_audit_begins_while_another_goes_on() -> None:
    with watched() as here:
        first, second = here.sequence(), here.sequence()
        here.gate.clear()
        here.made.ended(here.made.append_to(first, [1] * 50))
        here.made.settle()
        here.made.ended(here.made.append_to(second, [2] * 60))
        here.made.settle()
        here.gate.set()
        assert here.found().tokens == 50
        assert here.audits_the_next()


def test_a_fraction_is_chosen_by_name() -> None:
    names = [f"session-{i}" for i in range(4000)]
    some = {name for name in names if chosen(name, 0.25)}
    assert 900 < len(some) < 1100 and some == {name for name in names if chosen(name, 0.25)}
    assert some <= {name for name in names if chosen(name, 0.5)}
    assert not any(chosen(name, 0.0) for name in names) and all(chosen(name, 1.0) for name in names)
