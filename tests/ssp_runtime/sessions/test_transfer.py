"""Sessions that are carried from one engine to another."""

from typing import Any

import numpy as np
import pytest
import torch

from ssp_runtime.engine.generator import GenerationLimits
from ssp_runtime.engine.progress import Progress
from ssp_runtime.errors import (
    InvalidRequest,
    ModelMismatch,
    PositionMismatch,
    SessionBusy,
    SnapshotCorrupt,
    StateCorrupt,
    UnknownCheckpoint,
)
from ssp_runtime.sessions import snapshot, transfer
from ssp_runtime.sessions.session import Session
from tests.ssp_runtime.engine.engine_harness import GREEDY, PATIENCE, Driver, driver
from tests.ssp_runtime.engine.test_stepping import append, regressor
from tests.ssp_runtime.sessions.forgery import opened

PROMPT = list(b"the quick brown fox")
SAMPLED: dict[str, Any] = {
    "temperature": 1.0, "seed": 7, "repetition_penalty": 1.3, "presence_penalty": 0.5, "max_tokens": 40,
}  # fmt: skip


def exported(run: Driver, session: Session, dtype: torch.dtype | None = None, **where: Any) -> bytes:
    copy = transfer.copied(session, run.generator, **where).result(PATIENCE)
    return transfer.pack(copy, run.generator, dtype)


def imported(run: Driver, data: bytes) -> Session:
    sequence = transfer.restored(snapshot.read(data), run.generator)
    return run.sessions.open(run.generator, start=sequence)


def state(run: Driver, session: Session) -> dict[str, torch.Tensor]:
    copy = transfer.copied(session, run.generator).result(PATIENCE)
    return run.engine.pool.tensors(copy.spilled)


def test_an_imported_session_goes_on_exactly() -> None:
    with driver() as here, driver() as there:
        session = here.open()
        here.complete(session, PROMPT, **SAMPLED)
        data = exported(here, session)
        copy = imported(there, data)
        assert (copy.standing.position, copy.standing.version, copy.id != session.id) == (60, 0, True)
        assert there.complete(copy, **SAMPLED) == here.complete(session, **SAMPLED)
        assert there.complete(copy, [1, 2]) == here.complete(session, [1, 2])
        twice = imported(there, data)  # a file is no session: it can be used again
        assert twice.standing.position == 60


def test_half_a_character_goes_along() -> None:
    with driver() as here, driver() as there:
        session = here.open()
        half, rest = "é".encode()
        here.complete(session, PROMPT, max_tokens=1, logit_bias={half: 100})
        copy = imported(there, exported(here, session))
        call = there.start(copy, max_tokens=1, logit_bias={rest: 100})
        there.finish(call)
        assert there.text(call) == "é"


def test_what_was_not_delivered_goes_along() -> None:
    with driver(max_ahead=4) as here, driver() as there:
        session = here.open()
        call = here.start(session, PROMPT, max_tokens=50)
        here.wait(lambda: call.num_unread == 4)
        here.engine.cancel(call)
        here.ended(call)
        copy = imported(there, exported(here, session))
        GREEDY.check(there.complete(copy, max_tokens=6), [0, *PROMPT])


def test_a_retry_of_the_last_call_is_one_there_too() -> None:
    with driver() as here, driver() as there:
        session = here.open()
        tokens = here.finish(here.start(session, PROMPT, request_id="once"))
        copy = imported(there, exported(here, session))
        assert there.finish(there.start(copy, PROMPT, request_id="once")) == tokens
        assert copy.standing.position == session.standing.position


def test_a_session_that_has_folded_nothing() -> None:
    with driver() as here, driver() as there:
        copy = imported(there, exported(here, here.open()))
        GREEDY.check(there.complete(copy, PROMPT), [0, *PROMPT])


def test_a_session_over_numbers() -> None:
    vectors = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    with driver(artifact=regressor()) as here, driver(artifact=regressor()) as there:
        session = here.open()
        append(here, session, vectors)
        copy = imported(there, exported(here, session))
        assert copy.standing.position == 9
        mine, others = state(here, session), state(there, copy)
        assert all(torch.equal(others[name], tensor) for name, tensor in mine.items())


def test_a_checkpoint_is_carried_away_whatever_the_session_does() -> None:
    with driver() as here, driver() as there:
        session = here.open()
        here.append(session, PROMPT)
        here.sessions.checkpoint(session, "fox")
        call = here.start(session, max_tokens=100_000)
        with pytest.raises(SessionBusy):
            transfer.copied(session, here.generator)
        data = exported(here, session, checkpoint="fox")
        here.engine.cancel(call)
        here.ended(call)
        with pytest.raises(PositionMismatch):
            transfer.copied(session, here.generator, expected_position=1)
        with pytest.raises(UnknownCheckpoint):
            transfer.copied(session, here.generator, checkpoint="cat")
        session.sequence.broken = True
        with pytest.raises(StateCorrupt):
            transfer.copied(session, here.generator)
        assert exported(here, session, checkpoint="fox") == data
        GREEDY.check(there.complete(imported(there, data)), [0, *PROMPT])


def test_a_file_does_not_tell_whose_it_was() -> None:
    with driver() as here:
        session = here.sessions.open(here.generator, owner="the owner")
        here.append(session, PROMPT)
        data = exported(here, session)
        assert opened(data)[0]["about"] == {"model": "tiny"}
        for secret in (session.id, session.id.partition(".")[2], "the owner"):
            assert secret.encode() not in data


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_a_converted_state_is_within_the_rounding_of_its_dtype(dtype: torch.dtype, rounding: float) -> None:
    with driver() as here, driver() as there:
        session = here.open()
        here.append(session, PROMPT)
        exact, small = exported(here, session), exported(here, session, dtype)
        num_bytes = sum(tensor.nbytes for tensor in opened(exact)[1].values())
        assert sum(tensor.nbytes for tensor in opened(small)[1].values()) < 0.52 * num_bytes
        before, after = state(here, session), state(there, imported(there, small))
        tiny = torch.finfo(dtype).tiny
        for name, tensor in before.items():
            assert after[name].dtype == tensor.dtype and not torch.equal(after[name], tensor), name
            error = (after[name].double() - tensor.double()).abs()
            assert bool((error <= rounding * tensor.double().abs().clamp(min=tiny)).all()), name
        assert torch.equal(
            torch.cat([tensor.flatten() for tensor in state(there, imported(there, exact)).values()]),
            torch.cat([tensor.flatten() for tensor in before.values()]),
        )


def test_a_state_that_the_dtype_cannot_hold_is_not_exported() -> None:
    with driver() as here:
        session = here.open()
        here.append(session, PROMPT)
        copy = transfer.copied(session, here.generator).result(PATIENCE)
        name, tensor = next(iter(here.engine.pool.tensors(copy.spilled).items()))
        tensor.view(-1)[0] = 7e4
        with pytest.raises(InvalidRequest, match=f"{name} of the state holds numbers beyond the range of .*float16"):
            transfer.pack(copy, here.generator, torch.float16)
        transfer.pack(copy, here.generator, torch.bfloat16)
        tensor.view(-1)[0] = float("nan")
        with pytest.raises(StateCorrupt):
            transfer.pack(copy, here.generator)


def test_another_models_snapshot_is_refused() -> None:
    with driver() as here:
        session = here.open()
        data = exported(here, session)
        here.generator.artifact = type(here.generator.artifact)(
            description=here.generator.artifact.description, model=here.generator.artifact.model, fingerprint="other"
        )
        with pytest.raises(ModelMismatch, match="of another model than 'tiny'"):
            imported(here, data)


def test_no_snapshot_is_larger_than_its_bound() -> None:
    """The worst: a full penalty window, and a long call all of whose text needs to be escaped."""
    count = 5000
    with driver(limits=GenerationLimits(max_tokens=count)) as run:
        session = run.open()
        last = run.append(session, [200] * 2000, request_id="\\" * 128)
        assert last.last is not None
        text = Progress(position=0, token_ids=(1,) * count, text="\1" * count)
        last.restore_results(taken=text, untaken=Progress(position=0), num_flushed=0, last=last.last)
        data = exported(run, session, torch.float32)
        bound, without = transfer.max_bytes(run.generator), snapshot.max_bytes(run.generator, 0)
        assert without < len(data) <= bound
        session.sequence.last_call = None
        assert len(exported(run, session)) <= without
        with pytest.raises(SnapshotCorrupt):
            imported(run, data[:-1])
