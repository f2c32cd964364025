"""Which sessions a server knows, of which models, and what their states take in memory."""

import re
from collections import OrderedDict
from dataclasses import dataclass

from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import Exhausted, InvalidRequest, SessionExpired, SessionMoved, UnknownSession
from ssp_runtime.sessions.observer import SessionObserver
from ssp_runtime.sessions.session import Session

_REMEMBERED = 10_000
_PAGE_TOKEN = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    """`max_state_bytes` bounds the states that are in memory together, on the device and off it."""

    max_sessions: int = 100_000
    max_state_bytes: int = 4 << 30


class Roster:
    """For one thread at a time."""

    def __init__(self, limits: SessionLimits, observer: SessionObserver) -> None:
        self._limits, self._observer = limits, observer
        self._sessions: dict[str, Session] = {}
        self._generators: dict[str, Generator] = {}
        self._in_memory: OrderedDict[Session, None] = OrderedDict()  # longest unused first
        self._opened: OrderedDict[tuple[str, str, str], str] = OrderedDict()  # (owner, model, request) -> session
        self._expired: OrderedDict[str, None] = OrderedDict()  # ids of sessions that were not used for their ttl
        self._state_bytes = 0
        self._num_opened = 0

    # Who is there

    def find(self, session_id: str) -> Session:
        """Raises `SessionExpired` or `UnknownSession`."""
        session = self._sessions.get(session_id)
        if session is not None and session.has_expired:
            self._expire(session)
        if session_id in self._expired:
            raise SessionExpired("the session was not used for as long as its ttl; open another")
        if session is None:
            raise UnknownSession("no session has this session_id; it was closed, or opened on another server")
        return session

    def __contains__(self, session: Session) -> bool:
        return self._sessions.get(session.id) is session

    def generator(self, session: Session) -> Generator:
        """Raises `SessionMoved` or `UnknownSession` if it is here no more."""
        if session in self:
            return self._generators[session.id]
        if session.has_moved:
            raise SessionMoved("the session went on elsewhere; ask again, from where it stands now")
        raise UnknownSession("the session was closed")

    def made_by(self, owner: str, model: str, request: str) -> Session | None:
        """The session that a call of an owner, known by that name, made before."""
        return self._sessions.get(self._opened.get((owner, model, request), "")) if request else None

    def page(self, model: str, after: str, count: int, owner: str | None) -> tuple[list[Session], str]:
        """As `SessionManager.list`."""
        if after and not _PAGE_TOKEN.fullmatch(after):
            raise InvalidRequest("page_token is not one that ListSessions returned; begin again without it")
        self.remove_expired()
        named = [s for s in self._sessions.values() if model in ("", s.model) and owner in (None, s.owner)]
        left = [session for session in named if session.number > int(after or 0)]
        page = left[:count]
        return page, str(page[-1].number) if len(left) > count else ""

    def pairs(self) -> list[tuple[Session, Generator]]:
        """All sessions, each with its model."""
        self.remove_expired()
        return [(session, self._generators[session.id]) for session in self._sessions.values()]

    # Coming and going

    def add(self, session: Session, generator: Generator) -> None:
        """Lists a session after all others."""
        self._num_opened = session.number = self._num_opened + 1
        self._sessions[session.id], self._generators[session.id] = session, generator
        self._expired.pop(session.id, None)
        if session.request:
            self._opened[session.owner, session.model, session.request] = session.id
            _forget_oldest(self._opened)

    def remove(self, session: Session) -> None:
        """Frees the memory of a session that nobody may ask for any more."""
        for sequence in session.sequences:
            self.leaves(session, sequence)
        self._in_memory.pop(session, None)
        del self._generators[session.id], self._sessions[session.id]

    def remove_expired(self) -> None:
        """Those that nobody used for as long as they were to be kept."""
        for session in [session for session in self._sessions.values() if session.has_expired]:
            self._expire(session)

    def _expire(self, session: Session) -> None:
        self.remove(session)
        self._expired[session.id] = None
        _forget_oldest(self._expired)
        self._observer.expired(session.model)

    # Memory

    def longest_unused(self) -> list[Session]:
        """All that are in memory, the longest unused first."""
        return list(self._in_memory)

    def used(self, session: Session) -> None:
        """The session is in memory, and was used just now."""
        self._in_memory[session] = None
        self._in_memory.move_to_end(session)

    def rests(self, session: Session) -> None:
        """The session is in memory no more."""
        self._in_memory.pop(session, None)

    def enters(self, generator: Generator) -> None:
        """One more state is in memory."""
        self._state_bytes += generator.state_bytes

    def leaves(self, session: Session, sequence: Sequence) -> None:
        """A state of the session is in memory no more."""
        generator = self._generators[session.id]
        self._state_bytes -= generator.state_bytes
        generator.discard(sequence)

    def drop(self, session: Session, checkpoint: str) -> None:
        """The session has no checkpoint of that name any more."""
        kept = session.checkpoints.pop(checkpoint, None)
        if kept is not None and kept.sequence is not None:
            self.leaves(session, kept.sequence)

    def has_room(self, generator: Generator) -> bool:
        """Whether one more state fits into memory."""
        if not self._fits(generator):
            self.remove_expired()
        return self._fits(generator)

    def _fits(self, generator: Generator) -> bool:
        return self._state_bytes + generator.state_bytes <= self._limits.max_state_bytes

    def check_room_for_state(self, generator: Generator) -> None:
        if not self.has_room(generator):
            message = "the states of sessions and checkpoints fill the memory they may take; close some"
            raise Exhausted(message, retry_after=5)

    def check_room_for_session(self) -> None:
        if len(self._sessions) >= self._limits.max_sessions:
            self.remove_expired()
        if len(self._sessions) >= self._limits.max_sessions:
            raise Exhausted(f"{len(self._sessions)} sessions are open, as many as allowed; close some", retry_after=5)


def _forget_oldest(remembered: OrderedDict) -> None:  # type: ignore[type-arg]  # whatever it holds
    if len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
