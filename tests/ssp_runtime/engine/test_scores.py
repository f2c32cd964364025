"""Scores of texts and of continuations, against the model by itself."""

from collections.abc import Sequence as Ids

import pytest
import torch

from ssp_runtime.engine import scores as scores_module
from ssp_runtime.engine.call import ScoringCall
from ssp_runtime.engine.generator import GenerationLimits
from ssp_runtime.errors import Exhausted, InvalidRequest, PositionMismatch, SessionBusy
from tests.ssp_runtime.engine.engine_harness import GREEDY, Driver, driver, tiny_model

TEXT = list(b"the quick brown fox jumps over the lazy dog")
CONTINUATIONS = [[7], [8, 9], list(b" and runs away")]


@torch.no_grad()
def expected(context: Ids[int], ids: Ids[int]) -> list[float]:
    model = tiny_model()
    tokens = torch.tensor([*context, *ids])
    logits, _ = model(tokens[None, :-1], model.initial_state(1))
    scores = logits[0].log_softmax(-1).gather(-1, tokens[1:, None])[:, 0].tolist()
    return [float(score) for score in scores[len(context) - 1 :]]


def scores(made: Driver, prompts: Ids[Ids[int]]) -> list[list[float]]:
    return [ended(made, call) for call in made.generator.score(prompts)]


def ended(made: Driver, call: ScoringCall) -> list[float]:
    made.ended(call)
    return call.scores


@pytest.mark.parametrize("piece", [1, 10, 2048])
def test_texts_are_scored_whole(piece: int) -> None:
    with driver(slots=2, piece=piece) as made:
        prompts = [TEXT, TEXT[:1], TEXT[:7]]
        for found, prompt in zip(scores(made, prompts), prompts, strict=True):
            assert found == pytest.approx(expected([0], prompt), abs=1e-4)
        assert made.engine.pool.num_used == 0


def test_a_long_text_is_scored_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "PIECE", 5)
    with driver() as made:
        (found,) = scores(made, [TEXT])
        assert found == pytest.approx(expected([0], TEXT), abs=1e-4)


def test_a_text_that_brings_its_beginning() -> None:
    with driver() as made:
        (found,) = scores(made, [[0, *TEXT]])
        assert found == pytest.approx(expected([0], TEXT), abs=1e-4)


@pytest.mark.parametrize("slots", [1, 8])
def test_a_peek_leaves_the_session_as_it_was(slots: int) -> None:
    with driver(slots=slots) as made:
        session = made.open()
        made.append(session, TEXT)
        said = made.complete(session, max_tokens=3)
        before = (session.sequence.position, session.sequence.version)
        calls = made.sessions.peek(session, CONTINUATIONS)
        for call, continuation in zip(calls, CONTINUATIONS, strict=True):
            found = ended(made, call)
            assert found == pytest.approx(expected([0, *TEXT, *said], continuation), abs=1e-4)
        assert (session.sequence.position, session.sequence.version) == before
        GREEDY.check(said + made.complete(session), [0, *TEXT])


def test_a_peek_into_a_new_session() -> None:
    with driver() as made:
        (call,) = made.sessions.peek(made.open(), [TEXT])
        assert ended(made, call) == pytest.approx(expected([0], TEXT), abs=1e-4)


def test_refusals() -> None:
    with driver(started=False, limits=GenerationLimits(max_waiting=2)) as made:
        session = made.open()
        with pytest.raises(PositionMismatch):
            made.sessions.peek(session, [TEXT], expected_position=3)
        with pytest.raises(InvalidRequest, match="256"):
            made.sessions.peek(session, [TEXT, [256]])
        with pytest.raises(Exhausted):
            made.sessions.peek(session, [TEXT] * 3)
    with driver(started=False) as made:
        session = made.open()
        made.start(session, TEXT)
        with pytest.raises(SessionBusy):
            made.sessions.peek(session, [TEXT])
