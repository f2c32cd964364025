"""Where sessions are, and what they do."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ssp_runtime.engine.generator import Generator
from ssp_runtime.sessions.session import Session


@dataclass(frozen=True, kw_only=True)
class Census:
    """Open sessions and the bytes of their states and checkpoints, by tier ("device", "host", "store") and status
    ("busy", "idle"). Each counts where it is fastest to reach."""

    sessions: Counter[tuple[str, str]] = field(default_factory=Counter)
    state_bytes: Counter[tuple[str, str]] = field(default_factory=Counter)


def take(pairs: Iterable[tuple[Session, Generator]]) -> Census:
    """Of sessions, each with its model."""
    census = Census()
    for session, generator in pairs:
        _count(session, generator, census)
    return census


def tier(session: Session, generator: Generator) -> str:
    """Where its state lies: "device", "host" or "store"."""
    if session.resident is None:
        return "store"
    return "device" if session.resident in generator.engine.pool else "host"


def _count(session: Session, generator: Generator, census: Census) -> None:
    at = tier(session, generator), "busy" if session.is_busy else "idle"
    census.sessions[at] += 1
    census.state_bytes[at] += generator.state_bytes
    for checkpoint in list(session.checkpoints.values()):
        where = "store" if checkpoint.sequence is None else "host"
        census.state_bytes[where, "idle"] += generator.state_bytes
