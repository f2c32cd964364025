"""Calls that are fed bit by bit: every input is answered with what the model itself says there, in any crowd."""

from collections.abc import Sequence as Ids
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ssp_runtime.engine.call import Call, CallOptions, Input
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.stepping import MAX_PIECE, SteppingCall
from ssp_runtime.errors import InvalidRequest, PositionMismatch, SessionBusy, StateCorrupt
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.mixers.lru import LRUConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import BlockConfig, ModelConfig, NumberEmbeddingConfig, ValuesHeadConfig
from ssp_runtime.models.model import CausalModel, SequenceRegressor
from ssp_runtime.sessions.session import Session
from tests.ssp_runtime.engine.engine_harness import GREEDY, Driver, driver, tiny_model

Rows = npt.NDArray[np.float32]

BOS = 0
TOKENS = [*b"the quick brown fox jumps over the lazy dog"]


def said(tokens: Ids[int]) -> Rows:
    """What the model itself says after each of the tokens, which a text begins with."""
    return forward(tiny_model(), torch.tensor([BOS, *tokens]))[1:]


@torch.inference_mode()
def forward(model: CausalModel, inputs: torch.Tensor) -> Rows:
    outputs, _ = model(inputs[None], model.initial_state(1))
    return np.asarray(outputs[0].numpy())


@torch.inference_mode()
def step_by_step(model: CausalModel, inputs: torch.Tensor) -> Rows:
    state, rows = model.initial_state(1), []
    for each in inputs:
        outputs, state = model.step(each[None], state)
        rows.append(outputs[0].numpy())
    return np.stack(rows)


class Stream:
    """A stepping call and what was read of it."""

    def __init__(self, made: Driver, session: Session, top: int = 0, expected_position: int | None = None) -> None:
        self._driver = made
        self.call: SteppingCall = made.sessions.step(session, CallOptions(), expected_position, top=top)
        self.read: list[Progress] = []

    def feed(self, inputs: Ids[Input] | Rows, *, last: bool = False) -> None:
        self._driver.engine.feed(self.call, list(inputs), last=last)

    def rows(self, count: int) -> Rows:
        """The next rows, when there are so many."""
        before = len(self.read)
        self._driver.wait(lambda: self._take(before) >= count)
        rows = [progress.outputs for progress in self.read[before:] if progress.outputs is not None]
        assert sum(map(len, rows)) == count
        return np.concatenate(rows)

    def send(self, inputs: Ids[Input] | Rows) -> Rows:
        self.feed(inputs)
        return self.rows(len(inputs))

    def end(self) -> Progress:
        self.feed((), last=True)
        return self.ended()

    def ended(self) -> Progress:
        self._driver.wait(lambda: self.call.finish_reason is not None)
        assert self.call.last is not None
        return self.call.last

    def _take(self, start: int) -> int:
        self.read += self.call.take(1)
        self._driver.engine.wake()
        return sum(len(progress.outputs) for progress in self.read[start:] if progress.outputs is not None)


def close(found: Rows, expected: Rows) -> bool:
    return found.shape == expected.shape and bool(np.abs(found - expected).max() < 2e-4)


def test_one_by_one_and_many_at_once_say_the_same_as_the_model() -> None:
    expected = said(TOKENS)
    assert close(expected, step_by_step(tiny_model(), torch.tensor([BOS, *TOKENS]))[1:])
    with driver() as made:
        session = made.open()
        stream = Stream(made, session)
        one_by_one = np.concatenate([stream.send([token]) for token in TOKENS])
        at_once = Stream(made, made.open()).send(TOKENS)
        assert close(one_by_one, expected) and close(at_once, expected)
        assert [progress.position for progress in stream.read] == list(range(2, len(TOKENS) + 2))
        last = stream.end()
        assert (last.finish_reason, last.position) == (FinishReason.LENGTH, len(TOKENS) + 1)
        assert session.sequence.position == session.committed_position == len(TOKENS) + 1
        assert not session.is_busy


def test_a_few_go_by_rows_and_many_in_pieces() -> None:
    tokens = (TOKENS * 20)[:600]
    with driver() as made:
        stream = Stream(made, made.open())
        assert close(stream.send(tokens[:6]), said(tokens)[:6])
        assert made.hooks.rows == [1] * 7, "the beginning of the text and six tokens"
        assert close(stream.send(tokens[6:]), said(tokens)[6:])
        assert len(made.hooks.rows) == 7
        sizes = [len(progress.outputs) for progress in stream.read[6:] if progress.outputs is not None]
        assert max(sizes) == MAX_PIECE and len(sizes) == 3


def test_among_rows_that_generate() -> None:
    expected = said(TOKENS)
    with driver(max_ahead=10_000) as made:
        texts = [made.submit(made.sequence(), [BOS, *TOKENS[:n]], max_tokens=120) for n in (3, 5)]
        stream = Stream(made, made.open())
        found = [stream.send(TOKENS[:20]), *(stream.send([token]) for token in TOKENS[20:])]
        assert close(np.concatenate(found), expected)
        for n, text in zip((3, 5), texts, strict=True):
            made.finish(text)
            GREEDY.check(made.tokens(text), [BOS, *TOKENS[:n]])
        assert 3 in made.hooks.rows, "they never ran in one batch"


def test_more_calls_than_slots() -> None:
    with driver(slots=2) as made:
        text = made.submit(made.sequence(), [BOS, *TOKENS], max_tokens=200)
        streams = [Stream(made, made.open()) for _ in range(5)]
        found: list[list[Rows]] = [[] for _ in streams]
        for start in range(0, len(TOKENS), 10):
            for number, stream in enumerate(streams):
                found[number].append(stream.send(TOKENS[start : start + 10][:: 1 if number else -1]))
        reverse = [token for start in range(0, len(TOKENS), 10) for token in TOKENS[start : start + 10][::-1]]
        assert close(np.concatenate(found[0]), said(reverse))
        for rows in found[1:]:
            assert close(np.concatenate(rows), said(TOKENS))
        GREEDY.check(made.finish(text), [BOS, *TOKENS])
        assert made.hooks.spills >= 5


def test_what_is_pending_is_folded_first_and_brings_no_row() -> None:
    with driver() as made:
        session = made.open()
        generated = made.complete(session, TOKENS[:10], max_tokens=3)
        assert session.sequence.pending == generated[-1]
        stream = Stream(made, session, expected_position=14)
        context = [*TOKENS[:10], *generated]
        assert close(stream.send(TOKENS[10:12]), said([*context, *TOKENS[10:12]])[-2:])
        assert stream.end().position == session.sequence.position == 16
        assert session.sequence.pending is None
        assert [token for token, _ in session.sequence.recent] == [BOS, *context, *TOKENS[10:12]]


def test_a_stream_without_input_leaves_everything_as_it_was() -> None:
    with driver() as made:
        session = made.open()
        generated = made.complete(session, TOKENS, max_tokens=3)
        before = (session.sequence.pending, session.sequence.position)
        assert Stream(made, session).end().finish_reason is FinishReason.LENGTH
        assert (session.sequence.pending, session.sequence.position) == before
        GREEDY.check([*generated, *made.complete(session, max_tokens=3)], [BOS, *TOKENS])


def test_afterwards_only_input_can_be_continued() -> None:
    with driver() as made:
        session = made.open()
        stream = Stream(made, session)
        stream.send(TOKENS[:10])
        with pytest.raises(SessionBusy):
            made.start(session, TOKENS)
        stream.end()
        with pytest.raises(InvalidRequest, match="nothing is pending to go on from; give at least one token"):
            made.start(session)
        with pytest.raises(PositionMismatch, match="stands at position 11"):
            Stream(made, session, expected_position=10)
        GREEDY.check(made.complete(session, TOKENS[10:]), [BOS, *TOKENS])


def test_a_fork_goes_its_own_way_from_the_last_input() -> None:
    with driver() as made:
        session = made.open()
        stream = Stream(made, session)
        stream.send(TOKENS[:10])
        stream.end()
        forked = made.sessions.fork(session)
        assert close(Stream(made, session).send(TOKENS[10:]), said(TOKENS)[10:])
        assert close(Stream(made, forked).send(TOKENS[:5]), said([*TOKENS[:10], *TOKENS[:5]])[10:])


def test_a_cancelled_call_stays_at_the_last_input_that_was_folded() -> None:
    tokens = (TOKENS * 10)[:400]
    with driver(max_ahead=4) as made:
        session = made.open()
        stream = Stream(made, session)
        stream.feed(tokens)
        made.wait(lambda: stream.call.num_unread >= 4)  # there it waits for its reader
        made.engine.cancel(stream.call)
        assert stream.ended().finish_reason is FinishReason.ABORT
        folded = session.sequence.position - 1
        assert 0 < folded < len(tokens) and session.sequence.pending is None
        assert close(Stream(made, session).send(tokens[folded : folded + 5]), said(tokens)[folded : folded + 5])


def test_a_call_that_nobody_reads_any_more_keeps_no_outputs() -> None:
    with driver() as made:
        session = made.open()
        stream = Stream(made, session)
        stream.send(TOKENS[:3])
        stream.call.leave()
        stream.feed(TOKENS[3:5])
        assert stream.end().position == 6
        assert all(progress.outputs is None for progress in stream.call.take(1))


def test_a_copy_of_one_under_way_stands_at_the_last_input_that_was_folded() -> None:
    with driver(max_ahead=4) as made:
        session = made.open()
        stream = Stream(made, session)
        stream.feed(TOKENS[:6])
        made.wait(lambda: stream.call.num_unread >= 4)
        copy = made.engine.copied(session.sequence).result()
        assert (copy.pending, copy.position) == (None, 5)
        assert copy.last_call is not None and copy.last_call.finish_reason is FinishReason.ABORT
        resumed = made.sessions.open(made.generator, start=copy)
        assert close(Stream(made, resumed).send(TOKENS[4:6]), said(TOKENS)[4:6])
        assert close(stream.rows(6), said(TOKENS)[:6])


def test_a_reader_who_falls_behind_is_waited_for() -> None:
    with driver(max_ahead=4) as made:
        stream, other = Stream(made, made.open()), made.open()
        for token in TOKENS:
            stream.feed([token])
        made.wait(lambda: stream.call.num_unread >= 4)
        made.append(other, TOKENS * 20)
        assert stream.call.num_unread <= MAX_PIECE and made.engine.num_running == 0
        assert close(stream.rows(len(TOKENS)), said(TOKENS))


def test_a_reader_who_never_reads_is_cut_and_the_state_kept() -> None:
    with driver(max_ahead=4, stall_seconds=0.05) as made:
        session = made.open()
        stream = Stream(made, session)
        stream.feed(TOKENS[:7])
        assert stream.ended().finish_reason is FinishReason.ABORT
        assert session.sequence.position == 5
        assert close(stream.rows(4), said(TOKENS)[:4])
        assert close(Stream(made, session).send(TOKENS[4:]), said(TOKENS)[4:])


@pytest.mark.parametrize("at_once", [1, 20])
def test_the_likeliest_tokens(at_once: int) -> None:
    with driver() as made:
        stream = Stream(made, made.open(), top=3)
        logprobs = np.concatenate([stream.send(TOKENS[i : i + at_once]) for i in range(0, 40, at_once)])
        ids = np.concatenate([progress.top_ids for progress in stream.read if progress.top_ids is not None])
    expected = torch.from_numpy(said(TOKENS[:40])).log_softmax(-1).topk(3)
    assert close(logprobs, expected.values.numpy()) and (ids == expected.indices.numpy()).all()


def test_only_so_many_likeliest_tokens_can_be_told() -> None:
    with driver() as made:
        session = made.open()
        with pytest.raises(InvalidRequest, match=r"top_logprobs must be in \[0, 256\], not 257"):
            made.sessions.step(session, CallOptions(), top=257)
        assert not session.is_busy


def test_with_a_quantum_the_bits_are_the_same_alone_and_in_a_crowd() -> None:
    found = []
    for crowd in (0, 5):
        with driver(quantum=4, max_ahead=10_000) as made:
            texts = [made.submit(made.sequence(), [BOS, *TOKENS], max_tokens=40) for _ in range(crowd)]
            stream = Stream(made, made.open())
            found.append(np.concatenate([stream.send(TOKENS[:12]), stream.send(TOKENS[12:13])]))
            made.finish(*texts) if texts else None
    assert close(found[0], said(TOKENS)[:13]) and found[0].tobytes() == found[1].tobytes()


# Models over numbers


@cache
def regressor() -> Artifact:
    config = ModelConfig(
        d_model=12,
        embedding=NumberEmbeddingConfig(d_input=3),
        layers=(BlockConfig(mixer=SimpleConfig(ssp=LRUConfig(d_state=10))), BlockConfig(mixer=MambaConfig())),
        head=ValuesHeadConfig(d_output=2),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SequenceRegressor(config)
    to_recurrent(model)
    return Artifact(description=Description(model=config, form="recurrent"), model=model, fingerprint="")


VECTORS = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)


def predicted(vectors: Rows) -> Rows:
    return forward(regressor().sequence_regressor, torch.from_numpy(vectors))


def append(made: Driver, session: Session, vectors: Rows, request_id: str = "") -> Call:
    return made.ended(made.sessions.start(session, list(vectors), None, CallOptions(request_id=request_id)))


def test_vectors_are_answered_with_predictions() -> None:
    with driver(artifact=regressor()) as made:
        stream = Stream(made, made.open())
        found = [*(stream.send(VECTORS[i : i + 1]) for i in range(5)), stream.send(VECTORS[5:])]
        assert close(np.concatenate(found), predicted(VECTORS))
        assert stream.end().position == len(VECTORS)


def test_vectors_are_appended_once_whatever_is_retried() -> None:
    with driver(artifact=regressor(), piece=32) as made:
        session = made.open()
        append(made, session, VECTORS[:100], "a")
        append(made, session, VECTORS[:100], "a")
        assert session.sequence.position == session.sequence.folded == 100
        made.sessions.checkpoint(session, "here")
        forked = made.sessions.fork(session)
        for each in (session, forked):
            assert close(Stream(made, each).send(VECTORS[100:110]), predicted(VECTORS)[100:110])
        rewound = made.open()
        append(made, rewound, VECTORS[:1])
        assert close(Stream(made, rewound).send(VECTORS[1:2]), predicted(VECTORS)[1:2])


def test_nothing_of_vectors_is_reused() -> None:
    with driver(artifact=regressor(), prefix_bytes=1 << 20, piece=512) as made:
        for scale in (0.01, 0.02):
            vectors = np.tile(VECTORS, (2, 1)) * np.float32(scale)
            session = made.open()
            append(made, session, vectors)
            assert close(
                Stream(made, session).send(vectors[:2]), predicted(np.concatenate([vectors, vectors[:2]]))[-2:]
            )


def test_an_append_of_vectors_that_was_cut_goes_on_where_it_stood() -> None:
    with driver(artifact=regressor(), piece=32) as made:
        session = made.open()
        call = made.sessions.start(session, list(VECTORS), None, CallOptions(request_id="a"))
        made.hooks.on_prefilled = lambda _: made.engine.cancel(call)
        made.ended(call)
        made.hooks.reset()
        folded = session.sequence.position
        assert folded == session.sequence.folded == 32 and session.sequence.pending is None
        append(made, session, VECTORS, "a")
        assert session.sequence.position == len(VECTORS)
        assert close(Stream(made, session).send(VECTORS[:1]), predicted(np.concatenate([VECTORS, VECTORS[:1]]))[-1:])


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (lambda made, session: made.start(session, list(VECTORS)), "can only append and step"),
        (lambda made, session: made.sessions.step(session, CallOptions(), top=1), "has no likeliest tokens"),
        (lambda made, session: made.sessions.peek(session, [[1]]), "3 finite numbers"),
        (lambda made, session: append(made, session, VECTORS[:, :2]), "3 finite numbers"),
        (lambda made, session: append(made, session, VECTORS * np.float32(np.nan)), "3 finite numbers"),
    ],
)
def test_what_a_model_over_numbers_cannot_do(act: Any, why: str) -> None:
    with driver(artifact=regressor()) as made:
        session = made.open()
        with pytest.raises(InvalidRequest, match=why):
            act(made, session)
        assert not session.is_busy


@pytest.mark.parametrize("count", [1, 20])
def test_a_state_that_overflows_ends_its_call_alone(count: int) -> None:
    with driver(artifact=regressor()) as made:
        lost, session = made.open(), made.open()
        stream = Stream(made, lost)
        stream.feed(np.full((count, 3), 3e38, np.float32))
        assert isinstance(stream.ended().error, StateCorrupt)
        with pytest.raises(StateCorrupt):
            Stream(made, lost)
        assert close(Stream(made, session).send(VECTORS[:20]), predicted(VECTORS)[:20])
