"""Carrying a session's state away, as a snapshot that does not tell which session it was."""

import time
from concurrent.futures import Future

import torch

from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.sessions import health, snapshot
from ssp_runtime.sessions.checks import check_idle, check_position, check_standing, known_checkpoint
from ssp_runtime.sessions.session import Session
from ssp_runtime.sessions.snapshot import Contents, Snapshot


def copied(
    session: Session, generator: Generator, checkpoint: str = "", expected_position: int | None = None
) -> Future[Sequence]:
    """A detached copy of a session that is in memory, or of one of its checkpoints.

    Raises:
        UnknownCheckpoint, SessionBusy, PositionMismatch, StateCorrupt: nothing was done.
    """
    session.touch()
    if not checkpoint:
        check_idle(session)
        check_standing(session, expected_position)
        return generator.engine.copied(session.sequence)
    kept = known_checkpoint(session, checkpoint)
    check_position(session, expected_position)
    assert kept.sequence is not None
    return generator.engine.copied(kept.sequence)


def pack(sequence: Sequence, generator: Generator, dtype: torch.dtype | None = None) -> bytes:
    """The snapshot of a detached sequence.

    Raises:
        StateCorrupt: the state is not finite.
        InvalidRequest: the dtype's range is too small for it.
    """
    health.check(generator.engine.pool.tensors(sequence.spilled), generator.state_spec)
    return snapshot.pack(Snapshot(sequence=sequence, about={"model": generator.name}), generator, dtype)


def restored(contents: Contents, generator: Generator) -> Sequence:
    """What the snapshot holds, to begin a session with. Raises as `snapshot.restored`."""
    sequence = snapshot.restored(contents, generator)
    sequence.version, sequence.last_used = 0, time.time()
    return sequence


def max_bytes(generator: Generator) -> int:
    """How large a snapshot of this model's sessions can be."""
    return snapshot.max_bytes(generator, generator.limits.max_tokens)
