"""All sessions of a server: opening, finding, calling, closing."""

import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field, replace

from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.sequence import Call, Sequence
from ssp_runtime.errors import (
    Exhausted,
    InvalidRequest,
    PositionMismatch,
    SessionBusy,
    SessionExpired,
    StateCorrupt,
    UnknownCheckpoint,
    UnknownSession,
)
from ssp_runtime.sessions.session import Session, check_checkpoint_name, check_id, new_id

MAX_REQUEST_ID = 128
_REMEMBERED = 10_000
_PAGE_TOKEN = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    """`max_state_bytes` bounds the states of all open sessions together, wherever they lie."""

    max_sessions: int = 100_000
    max_state_bytes: int = 4 << 30


@dataclass(frozen=True, kw_only=True)
class Census:
    """Open sessions and the bytes of their states and checkpoints, by tier ("device", "host") and status ("busy",
    "idle")."""

    sessions: Counter[tuple[str, str]] = field(default_factory=Counter)
    state_bytes: Counter[tuple[str, str]] = field(default_factory=Counter)


class SessionManager:
    """Safe to use from any thread; every call but `start` returns at once."""

    def __init__(self, limits: SessionLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._generators: dict[str, Generator] = {}
        self._opened: OrderedDict[tuple[str, str], str] = OrderedDict()  # (model, request_id) -> session
        self._expired: OrderedDict[str, None] = OrderedDict()  # ids of sessions that were not used for their ttl
        self._state_bytes = 0
        self._num_opened = 0

    def open(
        self, generator: Generator, routing_key: str = "", request_id: str = "", ttl: float | None = None
    ) -> Session:
        """A new session in the initial state; with a `request_id` seen before, the session made then. It is closed when
        nobody used it for `ttl` seconds.

        Raises:
            Exhausted: there are as many sessions, or bytes of state, as the limits allow.
        """
        check_request_id(request_id)
        with self._lock:
            known = self._known(generator, request_id)
            if known is not None:
                return known
            return self._admit(generator, routing_key, request_id, ttl)

    def fork(
        self, session: Session, *, routing_key: str = "", request_id: str = "", expected_position: int | None = None
    ) -> Session:
        """Another session that stands where this one does, and goes its own way from there. Checkpoints stay behind.

        Raises:
            SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        check_request_id(request_id)
        with self._lock:
            generator = self._generator_of(session)
            name = f"{session.id}/{request_id}" if request_id else ""
            known = self._known(generator, name)
            if known is not None:
                return known
            _check_idle(session)
            _check_standing(session, expected_position)
            session.touch()  # or making room might remove it
            forked = self._admit(generator, routing_key, name, session.ttl)
            generator.copy(session.sequence, forked.sequence)
            return forked

    def checkpoint(self, session: Session, name: str, expected_position: int | None = None) -> None:
        """Keeps the state that the session has now under a name, in place of an older one of that name.

        Raises:
            SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        check_checkpoint_name(name)
        with self._lock:
            generator = self._generator_of(session)
            _check_idle(session)
            _check_standing(session, expected_position)
            session.touch()  # or making room might remove it
            kept = session.checkpoints.get(name)
            if kept is None:
                self._check_room_for_state(generator)
                self._state_bytes += generator.state_bytes
                kept = session.checkpoints[name] = generator.new_sequence(kept=True)
            generator.copy(session.sequence, kept)

    def rewind(self, session: Session, name: str, expected_position: int | None = None) -> None:
        """Puts the session back to a checkpoint, which stays. What was computed since and not delivered is dropped.

        Raises:
            UnknownCheckpoint, SessionBusy, PositionMismatch: nothing was done.
        """
        with self._lock:
            generator = self._generator_of(session)
            kept = _checkpoint(session, name)
            _check_idle(session)
            _check_position(session, expected_position)
            generator.copy(kept, session.sequence)
            session.sequence.version += 1
            session.touch()

    def peek(self, session: Session, continuations: Ids[Ids[int]], expected_position: int | None = None) -> list[Call]:
        """Calls under way that score continuations of the session, which itself stays as it is.

        Raises:
            InvalidRequest, SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        with self._lock:
            generator = self._generator_of(session)
            _check_idle(session)
            _check_standing(session, expected_position)
            session.touch()
            return generator.score(continuations, session.sequence)

    def drop_checkpoint(self, session: Session, name: str) -> None:
        """Raises `UnknownCheckpoint` if there is none."""
        with self._lock:
            generator = self._generator_of(session)
            kept = _checkpoint(session, name)
            del session.checkpoints[name]
            self._state_bytes -= generator.state_bytes
        generator.discard(kept)

    def get(self, session_id: str) -> Session:
        check_id(session_id)
        with self._lock:
            session = self._sessions.get(session_id)
            if session is not None and session.has_expired:
                self._expire(session)
            if session_id in self._expired:
                raise SessionExpired("the session was not used for as long as its ttl; open another")
        if session is None:
            raise UnknownSession("no session has this session_id; it was closed, or opened on another server")
        return session

    def generator(self, session: Session) -> Generator:
        with self._lock:
            return self._generator_of(session)

    def list(self, model: str, after: str, count: int) -> tuple[list[Session], str]:
        """Sessions of a model ("": of all), oldest first, and a page token for `after` if more follow. Sessions closed
        in between do not disturb the pages."""
        if after and not _PAGE_TOKEN.fullmatch(after):
            raise InvalidRequest("page_token is not one that ListSessions returned; begin again without it")
        with self._lock:
            self._remove_expired()
            left = [s for s in self._sessions.values() if model in ("", s.model) and s.number > int(after or 0)]
        page = left[:count]
        return page, str(page[-1].number) if len(left) > count else ""

    def census(self) -> "Census":
        """Where the open sessions are, and what they do."""
        census = Census()
        with self._lock:
            self._remove_expired()
            pairs = [(session, self._generators[session.id]) for session in self._sessions.values()]
        for session, generator in pairs:
            tier = "device" if session.sequence in generator.engine.pool else "host"
            status = "busy" if session.sequence.call is not None else "idle"
            census.sessions[tier, status] += 1
            census.state_bytes[tier, status] += generator.state_bytes
            census.state_bytes["host", "idle"] += generator.state_bytes * len(session.checkpoints)
        return census

    def close(self, session_id: str) -> Session:
        """Ends a session; a call under way on it is cancelled."""
        session = self.get(session_id)
        with self._lock:
            self._generator_of(session)
            self._remove(session)
        return session

    def start(
        self,
        session: Session,
        prompt: Ids[int],
        params: SamplingParams | None,
        *,
        request_id: str = "",
        expected_position: int | None = None,
    ) -> Call:
        """Starts a call on a session. With the `request_id` of its last call, that one is repeated or gone on with:
        what it computed is returned again, and the session advances by what it had left to do. Tokens that the last
        call computed and nobody took come first.

        Raises:
            SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        check_request_id(request_id)
        sequence = session.sequence
        with self._lock:
            generator = self._generator_of(session)
            _check_idle(session)
            last_id, last = sequence.last_call or ("", None)
            if last is not None and request_id and request_id == last_id:
                call = last.repeated()
            else:
                _check_standing(session, expected_position)
                call = generator.new_call(sequence, prompt, params)
                for progress in last.undelivered() if last is not None else ():
                    call.put(replace(progress, finish_reason=None))
            if call.finish_reason is None:
                generator.submit(call)
            sequence.last_call = (request_id, call)  # a call that was refused never was
        return call

    # With the lock held

    def _generator_of(self, session: Session) -> Generator:
        if session.id not in self._generators:
            raise UnknownSession("the session was closed")
        return self._generators[session.id]

    def _remove(self, session: Session) -> None:
        generator = self._generators.pop(session.id)
        del self._sessions[session.id]
        self._state_bytes -= generator.state_bytes * (1 + len(session.checkpoints))
        for sequence in (session.sequence, *session.checkpoints.values()):
            generator.discard(sequence)

    def _remove_expired(self) -> None:
        """Those that nobody used for as long as they were to be kept."""
        for session in [session for session in self._sessions.values() if session.has_expired]:
            self._expire(session)

    def _expire(self, session: Session) -> None:
        self._remove(session)
        self._expired[session.id] = None
        if len(self._expired) > _REMEMBERED:
            self._expired.popitem(last=False)

    def _known(self, generator: Generator, request_id: str) -> Session | None:
        """The session that a call of that name made before."""
        return self._sessions.get(self._opened.get((generator.name, request_id), "")) if request_id else None

    def _admit(self, generator: Generator, routing_key: str, request_id: str, ttl: float | None) -> Session:
        if len(self._sessions) >= self._limits.max_sessions:
            self._remove_expired()
        if len(self._sessions) >= self._limits.max_sessions:
            raise Exhausted(f"{len(self._sessions)} sessions are open, as many as allowed; close some", retry_after=5)
        self._check_room_for_state(generator)
        number = self._num_opened + 1
        session = Session(
            id=new_id(routing_key),
            number=number,
            model=generator.name,
            sequence=generator.new_sequence(kept=True),
            ttl=ttl,
        )
        self._num_opened = number
        self._sessions[session.id] = session
        self._generators[session.id] = generator
        self._state_bytes += generator.state_bytes
        self._remember(generator.name, request_id, session.id)
        return session

    def _check_room_for_state(self, generator: Generator) -> None:
        most = self._limits.max_state_bytes - generator.state_bytes
        if self._state_bytes > most:
            self._remove_expired()
        if self._state_bytes > most:
            message = "the states of sessions and checkpoints fill the memory they may take; close some"
            raise Exhausted(message, retry_after=5)

    def _remember(self, model: str, request_id: str, session_id: str) -> None:
        if request_id:
            self._opened[model, request_id] = session_id
            if len(self._opened) > _REMEMBERED:
                self._opened.popitem(last=False)


def check_request_id(request_id: str) -> None:
    if len(request_id) > MAX_REQUEST_ID:
        raise InvalidRequest(f"request_id must have at most {MAX_REQUEST_ID} characters, not {len(request_id)}")


def _checkpoint(session: Session, name: str) -> Sequence:
    if name not in session.checkpoints:
        there = ", ".join(session.checkpoints) or "none"
        raise UnknownCheckpoint(f"the session has no checkpoint {name!r}; there are: {there}")
    return session.checkpoints[name]


def _check_idle(session: Session) -> None:
    _, last = session.sequence.last_call or ("", None)
    if last is not None and last.finish_reason is None:
        raise SessionBusy("another call on this session is under way; wait for it, or close the session")


def _check_standing(session: Session, expected: int | None) -> None:
    if session.sequence.broken:
        raise StateCorrupt("the state of this session is lost; rewind it to a checkpoint, or close it")
    _check_position(session, expected)


def _check_position(session: Session, expected: int | None) -> None:
    position = session.sequence.position
    if expected is not None and expected != position:
        raise PositionMismatch(f"the session stands at position {position}, not at {expected}; GetSession tells where")
