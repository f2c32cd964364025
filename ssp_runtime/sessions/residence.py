"""Which sessions are in memory, where there is a store for the others."""

import threading
from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from dataclasses import replace

from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import UnknownSession
from ssp_runtime.sessions.roster import Roster
from ssp_runtime.sessions.session import Checkpoint, Saved, Session


class Residence:
    """What a manager's sessions go through when they leave memory and come back. Safe to use from any thread."""

    def __init__(self, roster: Roster, lock: threading.RLock) -> None:
        self._roster, self._lock = roster, lock

    def adopt(self, session: Session, generator: Generator) -> Session:
        """Takes in a session that only the store has; the one of that id if it is known already."""
        with self._lock:
            try:
                return self._roster.find(session.id)
            except UnknownSession:
                self._roster.add(session, generator)
                return session

    def forget(self, session: Session) -> None:
        """The session is not this server's any more; a call under way on it is cancelled."""
        with self._lock:
            session.has_moved = True
            if session in self._roster:
                self._roster.remove(session)

    def __contains__(self, session: Session) -> bool:
        """Whether it is known."""
        with self._lock:
            return session in self._roster

    def generator(self, session: Session) -> Generator:
        """Raises `SessionMoved` or `UnknownSession` if the session is not here any more."""
        with self._lock:
            return self._roster.generator(session)

    def used(self, session: Session) -> None:
        """Others leave memory first."""
        with self._lock:
            if session in self._roster and session.resident is not None:
                self._roster.used(session)

    def longest_unused(self) -> Ordered[Session]:
        """All that are in memory, the longest unused first."""
        with self._lock:
            return self._roster.longest_unused()

    def has_room(self, generator: Generator) -> bool:
        """Whether one more state fits into memory."""
        with self._lock:
            return self._roster.has_room(generator)

    def put_away(self, session: Session) -> bool:
        """Only the store has the session's states from now on; False if it is in use or away, or the store lacks
        something."""
        with self._lock:
            is_here = session in self._roster and session.resident is not None
            if not is_here or session.is_in_use or not session.is_clean:
                return False
            assert session.saved is not None
            standing = replace(session.saved.standing, last_used=session.sequence.last_used)
            session.saved = replace(session.saved, standing=standing)
            for name in [name for name, kept in session.checkpoints.items() if kept.is_lost]:
                self._roster.drop(session, name)
            self.put_checkpoints_away(session)
            self._roster.leaves(session, session.sequence)
            self._roster.rests(session)
            session.resident = None
            return True

    def put_checkpoints_away(self, session: Session) -> bool:
        """Only the store has those of the session's checkpoints that it has at all; whether that freed memory."""
        with self._lock:
            if session not in self._roster:
                return False
            stored = [kept for kept in session.checkpoints.values() if kept.saved_at is not None]
            leaving = [(kept, kept.sequence) for kept in stored if kept.sequence is not None]
            for kept, sequence in leaving:
                self._roster.leaves(session, sequence)
                kept.sequence = None
            return bool(leaving)

    def bring_back(
        self, session: Session, sequence: Sequence, saved: Saved, checkpoints: Mapping[str, Checkpoint]
    ) -> None:
        """What the store has of a session is in memory again. Raises `Exhausted` if it has no room."""
        with self._lock:
            self._enter(session)
            session.resident, session.saved, session.checkpoints = sequence, saved, dict(checkpoints)
            self._roster.used(session)

    def bring_checkpoint_back(self, session: Session, checkpoint: Checkpoint, sequence: Sequence) -> None:
        """As `bring_back`."""
        with self._lock:
            self._enter(session)
            checkpoint.sequence = sequence

    def _enter(self, session: Session) -> None:
        generator = self._roster.generator(session)
        self._roster.check_room_for_state(generator)
        self._roster.enters(generator)
