"""All sessions that a server knows: opening, finding, calling, closing."""

import threading
from collections.abc import Sequence as Ids
from dataclasses import replace

from ssp_runtime.engine.call import Call, CallOptions, Input, ScoringCall
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.stepping import SteppingCall
from ssp_runtime.sessions import census
from ssp_runtime.sessions.census import Census
from ssp_runtime.sessions.checks import (
    check_idle,
    check_position,
    check_request_id,
    check_standing,
    known_checkpoint,
)
from ssp_runtime.sessions.observer import SessionObserver
from ssp_runtime.sessions.residence import Residence
from ssp_runtime.sessions.roster import Roster, SessionLimits
from ssp_runtime.sessions.session import Checkpoint, Session, check_checkpoint_name, check_id, new_id


class SessionManager:
    """Safe to use from any thread; every call returns at once. What it is given to work on must be in memory.

    With `durable` sessions there is a store, where those that leave memory go on to exist (see `keeper`).
    """

    def __init__(
        self, limits: SessionLimits, *, durable: bool = False, observer: SessionObserver | None = None
    ) -> None:
        self._durable, self._observer = durable, observer or SessionObserver()
        self._lock = threading.RLock()
        self._roster = Roster(limits, self._observer)
        self.residence = Residence(self._roster, self._lock)

    def open(
        self,
        generator: Generator,
        routing_key: str = "",
        request_id: str = "",
        ttl: float | None = None,
        *,
        owner: str = "",
        start: Sequence | None = None,
    ) -> Session:
        """A new session in the initial state, or one that goes on with `start`, a sequence with its state in host
        memory; with a `request_id` seen before, the session made then. It is closed when nobody used it for `ttl`
        seconds.

        Raises:
            Exhausted: there are as many sessions, or bytes of state, as the limits allow.
        """
        check_request_id(request_id)
        with self._lock:
            known = self._roster.made_by(owner, generator.name, request_id)
            if known is not None:
                return known
            session = self._admit(generator, routing_key, request_id, ttl, owner)
            if start is not None:
                session.resident = start
            return session

    def fork(
        self, session: Session, *, routing_key: str = "", request_id: str = "", expected_position: int | None = None
    ) -> Session:
        """Another session that stands where this one does, and goes its own way from there. Checkpoints stay behind.

        Raises:
            SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        check_request_id(request_id)
        with self._lock:
            generator = self._roster.generator(session)
            request = f"{session.id}/{request_id}" if request_id else ""
            known = self._roster.made_by(session.owner, generator.name, request)
            if known is not None:
                return known
            check_idle(session)
            check_standing(session, expected_position)
            session.touch()  # or making room might remove it
            forked = self._admit(generator, routing_key, request, session.ttl, session.owner)
            generator.copy(session.sequence, forked.sequence)
            self._observer.forked(session.model)
            return forked

    def checkpoint(self, session: Session, name: str, expected_position: int | None = None) -> None:
        """Keeps the state that the session has now under a name, in place of an older one of that name.

        Raises:
            SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        check_checkpoint_name(name)
        with self._lock:
            generator = self._roster.generator(session)
            check_idle(session)
            check_standing(session, expected_position)
            session.touch()  # or making room might remove it
            self._roster.check_room_for_state(generator)
            kept = generator.new_sequence(kept=True)
            generator.copy(session.sequence, kept)
            self._roster.drop(session, name)
            self._roster.enters(generator)
            session.checkpoints[name] = Checkpoint(position=kept.position, sequence=kept)
            session.sequence.version += 1
            self._observer.checkpointed(session.model)

    def rewind(self, session: Session, name: str, expected_position: int | None = None) -> None:
        """Puts the session back to a checkpoint, which stays. What was computed since and not delivered is dropped.

        Raises:
            UnknownCheckpoint, SessionBusy, PositionMismatch: nothing was done.
        """
        with self._lock:
            generator = self._roster.generator(session)
            kept = known_checkpoint(session, name)
            check_idle(session)
            check_position(session, expected_position)
            assert kept.sequence is not None
            before, session.resident = session.sequence, generator.new_sequence(kept=True)
            generator.copy(kept.sequence, session.resident)  # a copy of the one before may be under way
            session.resident.version = before.version + 1
            generator.discard(before)
            self._observer.rewound(session.model)

    def peek(
        self, session: Session, continuations: Ids[Ids[int]], expected_position: int | None = None
    ) -> list[ScoringCall]:
        """Calls under way that score continuations of the session, which itself stays as it is.

        Raises:
            InvalidRequest, SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        with self._lock:
            generator = self._roster.generator(session)
            check_idle(session)
            check_standing(session, expected_position)
            session.touch()
            return generator.score(continuations, session.sequence, owner=session.owner)

    def drop_checkpoint(self, session: Session, name: str) -> None:
        """Raises `UnknownCheckpoint` if there is none."""
        with self._lock:
            self._roster.generator(session)
            known_checkpoint(session, name)
            self._roster.drop(session, name)
            session.sequence.version += 1

    def get(self, session_id: str) -> Session:
        """Raises `SessionExpired` or `UnknownSession`."""
        check_id(session_id)
        with self._lock:
            return self._roster.find(session_id)

    def generator(self, session: Session) -> Generator:
        """Raises `SessionMoved` or `UnknownSession` if the session is not here any more."""
        with self._lock:
            return self._roster.generator(session)

    def list(self, model: str, after: str, count: int, owner: str | None = None) -> tuple[list[Session], str]:
        """Sessions of a model ("": of all) and of an owner (None: of all), oldest first, and a page token for `after`
        if more follow. Sessions closed in between do not disturb the pages."""
        with self._lock:
            return self._roster.page(model, after, count, owner)

    def census(self) -> Census:
        """Where the open sessions are, and what they do."""
        with self._lock:  # or one that leaves memory would count besides the one that takes its place
            return census.take(self._roster.pairs())

    def close(self, session_id: str) -> Session:
        """Ends a session; a call under way on it is cancelled."""
        with self._lock:
            session = self.get(session_id)
            self._roster.remove(session)
            return session

    def start(
        self,
        session: Session,
        prompt: Ids[Input],
        params: SamplingParams | None,
        options: CallOptions | None = None,
        *,
        expected_position: int | None = None,
    ) -> Call:
        """Starts a call on a session. With the `request_id` of its last call, that one is repeated or gone on with:
        what it computed is returned again, and the session advances by what it had left to do. Tokens that the last
        call computed and its client has not received come first.

        Raises:
            SessionBusy, PositionMismatch, Exhausted, StateCorrupt: nothing was done.
        """
        options = replace(options or CallOptions(), owner=session.owner)
        check_request_id(options.request_id)
        with self._lock:
            generator = self._roster.generator(session)
            check_idle(session)
            last = session.sequence.last_call
            if last is not None and options.request_id and options.request_id == last.options.request_id:
                call = generator.repeated(last, prompt, params, options)
            else:
                check_standing(session, expected_position)
                call = generator.new_call(session.sequence, prompt, params, options)
                if last is not None:
                    call.follow(last)
            if call.finish_reason is None:
                generator.submit(call)
            session.sequence.last_call = call  # a call that was refused never was
        return call

    def step(
        self, session: Session, options: CallOptions, expected_position: int | None = None, *, top: int = 0
    ) -> SteppingCall:
        """Starts a call that is fed bit by bit. Tokens that the last call computed and nobody took are dropped. Raises
        as `start`."""
        check_request_id(options.request_id)
        with self._lock:
            generator = self._roster.generator(session)
            check_idle(session)
            check_standing(session, expected_position)
            call = generator.new_stepping_call(session.sequence, replace(options, owner=session.owner), top=top)
            generator.submit(call)
            session.sequence.last_call = call
        return call

    # With the lock held

    def _admit(self, generator: Generator, routing_key: str, request: str, ttl: float | None, owner: str) -> Session:
        self._roster.check_room_for_session()
        self._roster.check_room_for_state(generator)
        session = Session(
            id=new_id(routing_key),
            number=0,
            model=generator.name,
            resident=generator.new_sequence(kept=True),
            owner=owner,
            ttl=ttl,
            request=request,
            is_durable=self._durable,
        )
        self._roster.add(session, generator)
        self._roster.enters(generator)
        self._roster.used(session)
        return session
