"""A batch never changes tokens; in deterministic mode not one bit of states and logits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import ssp_runtime
from ssp_runtime.engine import deterministic
from ssp_runtime.engine.call import Call
from ssp_runtime.engine.deterministic import Unfit
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.formats.artifact import Artifact, load
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.sessions import snapshot
from ssp_runtime.sessions.snapshot import Snapshot
from ssp_runtime.state import State
from tests.greedy import Greedy
from tests.ssp_runtime.engine.engine_harness import CONFIG, Driver, driver, tiny_artifact

SLOTS, COUNT = 6, 20
TEXT = b"def count(names):\n    return {name: names.count(name) for name in names}\n"
PROMPTS = [[(i * b) % 256 for b in TEXT[: 2 + 5 * i]] for i in range(1, 11)]


class Told(NamedTuple):
    """What a sequence said, and the state it had then."""

    tokens: list[int]
    row: Tensor | None


def told(made: Driver, sequence: Sequence, tokens: list[int]) -> Told:
    return Told(tokens, made.engine.copied(sequence).result().spilled)


# Circumstances: each tells what every prompt leads to.

Sampling = Callable[[int], dict[str, Any]]


def alone(made: Driver, sampling: Sampling) -> Iterator[Told]:
    for i, prompt in enumerate(PROMPTS):
        sequence = made.sequence()
        yield told(made, sequence, made.complete(sequence, prompt, max_tokens=COUNT, **sampling(i)))


def in_a_crowd(made: Driver, sampling: Sampling) -> Iterator[Told]:
    """More than there are slots, that take turns in them and end at different times."""
    sequences = [made.sequence() for _ in PROMPTS]
    lengths = [COUNT - 7 * (i % 3) for i in range(len(PROMPTS))]
    calls = [
        made.submit(sequence, prompt, max_tokens=lengths[i], **sampling(i))
        for i, (sequence, prompt) in enumerate(zip(sequences, PROMPTS, strict=True))
    ]
    made.finish(*calls)
    assert max(made.hooks.rows) > 1 and made.hooks.restores > 0
    for i, (sequence, call) in enumerate(zip(sequences, calls, strict=True)):
        rest = COUNT - lengths[i]
        more = made.complete(sequence, max_tokens=rest, **sampling(i)) if rest else []
        yield told(made, sequence, made.tokens(call) + more)


def in_pieces(made: Driver, sampling: Sampling) -> Iterator[Told]:
    """Its prompt appended bit by bit, its tokens generated in three calls; all sequences by turns."""
    sequences = [made.sequence() for _ in PROMPTS]
    tokens: list[list[int]] = [[] for _ in PROMPTS]
    for size in (1, 2, 7, 1000):
        at = {1: 0, 2: 1, 7: 3, 1000: 10}[size]
        for sequence, prompt in zip(sequences, PROMPTS, strict=True):
            if prompt[at : at + size]:
                made.ended(made.append_to(sequence, prompt[at : at + size]))
    for count in (1, 9, COUNT - 10):
        for i, sequence in enumerate(sequences):
            tokens[i] += made.complete(sequence, max_tokens=count, **sampling(i))
    for sequence, said in zip(sequences, tokens, strict=True):
        yield told(made, sequence, said)


def forked(made: Driver, sampling: Sampling) -> Iterator[Told]:
    """Forks go on side by side with the sessions they were made of."""
    for i, prompt in enumerate(PROMPTS):
        session = made.open()
        before = made.complete(session, prompt, max_tokens=COUNT // 2, **sampling(i))
        forks = [made.sessions.fork(session) for _ in range(3)]
        calls = [made.start(each, max_tokens=COUNT - COUNT // 2, **sampling(i)) for each in (session, *forks)]
        made.finish(*calls)
        assert len({tuple(made.tokens(call)) for call in calls}) == 1
        yield told(made, forks[i % 3].sequence, before + made.tokens(calls[0]))


def carried_away(made: Driver, sampling: Sampling) -> Iterator[Told]:
    """Each is packed and unpacked again between two calls."""
    for i, prompt in enumerate(PROMPTS):
        sequence = made.sequence()
        before = made.complete(sequence, prompt, max_tokens=COUNT // 2, **sampling(i))
        data = snapshot.pack(Snapshot(sequence=made.engine.copied(sequence).result()), made.generator)
        arrived = snapshot.unpack(data, lambda _: made.generator).sequence
        yield told(made, arrived, before + made.complete(arrived, max_tokens=COUNT - COUNT // 2, **sampling(i)))


CIRCUMSTANCES = (in_a_crowd, in_pieces, forked, carried_away)


@dataclass(frozen=True)
class Subject:
    artifact: Artifact
    told_alone: dict[bool, list[Told]] = field(default_factory=dict)

    @property
    def model(self) -> LanguageModel:
        return self.artifact.language_model

    @cached_property
    def reference(self) -> Greedy:
        return Greedy(self.model)

    @cached_property
    def quantum(self) -> int:
        return deterministic.quantum(self.model, SLOTS)

    def tell(self, circumstance: Callable[[Driver, Sampling], Iterator[Told]], *, exact: bool) -> list[Told]:
        quantum = self.quantum if exact else None
        with driver(slots=SLOTS, piece=16, turn_tokens=8, artifact=self.artifact, quantum=quantum) as made:
            return list(circumstance(made, drawn if exact else greedy))

    def alone(self, *, exact: bool) -> list[Told]:
        if exact not in self.told_alone:
            self.told_alone[exact] = self.tell(alone, exact=exact)
        return self.told_alone[exact]


def greedy(_: int) -> dict[str, Any]:
    return {}


def drawn(number: int) -> dict[str, Any]:
    """Every other one is greedy."""
    return {"temperature": float(number % 2), "seed": number}


@pytest.fixture(scope="module", params=["tiny", pytest.param("shipped", marks=pytest.mark.slow)])
def subject(request: pytest.FixtureRequest) -> Subject:
    shipped = Path(ssp_runtime.__file__).parent / "shipped" / "python-bytes"
    return Subject(tiny_artifact() if request.param == "tiny" else load(shipped))


@pytest.mark.parametrize("circumstance", [alone, *CIRCUMSTANCES])
def test_by_default_tokens_differ_at_near_ties_at_most(
    circumstance: Callable[[Driver, Sampling], Iterator[Told]], subject: Subject
) -> None:
    equal = [
        subject.reference.check(each.tokens, [0, *prompt])
        for each, prompt in zip(subject.tell(circumstance, exact=False), PROMPTS, strict=True)
    ]
    assert equal.count(False) <= 0.001 * COUNT * len(PROMPTS), "more than one token in a thousand"


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES)
def test_deterministic_mode_gives_the_same_bits(
    circumstance: Callable[[Driver, Sampling], Iterator[Told]], subject: Subject
) -> None:
    others = subject.tell(circumstance, exact=True)
    for wanted, other in zip(subject.alone(exact=True), others, strict=True):
        assert other.tokens == wanted.tokens
        assert wanted.row is not None and other.row is not None and torch.equal(wanted.row, other.row)


def test_deterministic_mode_gives_the_same_logits(subject: Subject) -> None:
    def logits(made: Driver, pieces: int) -> np.ndarray:
        """Of the longest prompt, fed in that many pieces."""
        call = made.step(made.sequence(), [list(piece) for piece in np.array_split(PROMPTS[-1], pieces)])
        made.finish(call)
        return made.outputs(call)

    with driver(slots=SLOTS, artifact=subject.artifact, quantum=subject.quantum) as made:
        alone = logits(made, 1)
        crowd = [made.submit(made.sequence(), prompt, max_tokens=200) for prompt in PROMPTS[:4]]
        assert np.array_equal(logits(made, 5), alone)
        made.finish(*crowd)
    assert max(made.hooks.rows) > 1 and len(alone) == len(PROMPTS[-1])


def test_deterministic_mode_reuses_prefixes_without_a_bit_of_difference(subject: Subject) -> None:
    def tell(made: Driver) -> tuple[Told, Call]:
        sequence = made.sequence()
        call = made.submit(sequence, PROMPTS[-1], max_tokens=COUNT)
        return told(made, sequence, made.finish(call)), call

    with driver(slots=SLOTS, artifact=subject.artifact, quantum=subject.quantum, prefix_bytes=1 << 24) as made:
        (first, computed), (again, reused) = tell(made), tell(made)
    assert (computed.cached_tokens, reused.cached_tokens) == (0, len(PROMPTS[-1]))
    assert first.tokens == again.tokens and first.row is not None and again.row is not None
    assert torch.equal(first.row, again.row)


def test_a_state_gone_nan_changes_no_bit_of_its_mates(subject: Subject) -> None:
    name = next(name for name, spec in subject.model.state_spec.items() if spec.kind == "accumulator")

    def rows(*, corrupted: bool) -> list[Tensor | None]:
        with driver(slots=SLOTS, artifact=subject.artifact, quantum=subject.quantum) as made:
            sequences = [made.sequence() for _ in range(SLOTS)]

            def corrupt(call: Call) -> None:
                if corrupted and call.sequence is sequences[2] and call.num_generated == 3:
                    made.engine.pool.row(sequences[2])[name].fill_(float("nan"))

            made.hooks.on_token = corrupt
            calls = [
                made.submit(each, prompt, max_tokens=COUNT) for each, prompt in zip(sequences, PROMPTS, strict=False)
            ]
            made.finish(*calls)
            assert sequences[2].broken == corrupted and (calls[2].num_generated < COUNT) == corrupted
            return [made.engine.copied(each).result().spilled for each in sequences]

    for at, (one, other) in enumerate(zip(rows(corrupted=False), rows(corrupted=True), strict=True)):
        assert at == 2 or (one is not None and other is not None and torch.equal(one, other))


# Whether it can be promised at all


class Altered(LanguageModel):
    """The outputs of a step, altered."""

    def __init__(self, alter: Callable[[Tensor], Tensor]) -> None:
        torch.manual_seed(0)
        super().__init__(CONFIG)
        self._alter = alter

    def step(self, x: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        outputs_RV, new = super().step(x, state, out=out)
        return self._alter(outputs_RV.double()), new


def test_rows_that_influence_each_other_are_unfit() -> None:
    with pytest.raises(Unfit, match="equal rows of one step come out different"):
        deterministic.quantum(Altered(lambda outputs_RV: outputs_RV + 1e-9 * outputs_RV.mean(0)), SLOTS)


def test_a_row_that_is_computed_otherwise_is_unfit() -> None:
    def alter(outputs_RV: Tensor) -> Tensor:
        outputs_RV[-1] += 1e-9
        return outputs_RV

    with pytest.raises(Unfit):
        deterministic.quantum(Altered(alter), SLOTS)


@pytest.mark.parametrize(("few", "wanted"), [(4, 4), (5, 8), (9, 12)])
def test_the_quantum_leaves_out_row_counts_that_are_computed_otherwise(few: int, wanted: int) -> None:
    """Powers of two are tried, then all slots."""
    model = Altered(lambda outputs_RV: outputs_RV + 1e-9 * (len(outputs_RV) < few))
    natural = deterministic.quantum(Altered(lambda outputs_RV: outputs_RV), 12)
    assert natural <= 4, "choose a larger `few`"
    assert deterministic.quantum(model, 12) == wanted


def test_the_trial_runs_on_as_many_threads_as_the_engine() -> None:
    seen, before = set(), torch.get_num_threads()

    def alter(outputs_RV: Tensor) -> Tensor:
        seen.add(torch.get_num_threads())
        return outputs_RV

    deterministic.quantum(Altered(alter), 2, threads=before + 1)
    assert seen == {before + 1} and torch.get_num_threads() == before
