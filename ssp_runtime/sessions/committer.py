"""When sessions are saved, and that it happens in order."""

import asyncio
import logging
import time
from dataclasses import dataclass

from ssp_runtime.completed import completed
from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import SessionMoved, SSPError, StateCorrupt
from ssp_runtime.sessions.archive import Archive, Moment
from ssp_runtime.sessions.observer import SessionObserver
from ssp_runtime.sessions.residence import Residence
from ssp_runtime.sessions.session import Session, Standing

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05  # between looks at sessions that nobody waits for
_SAVES = 16  # at once
_PAUSE_SECONDS = 1.0  # after a save that failed


@dataclass(frozen=True, kw_only=True)
class CommitPolicy:
    """When sessions are saved: when a call on them ends, and while one goes on, every so many tokens. Else only when
    asked to, when memory is needed, before the store lets them expire, and at the end."""

    when_idle: bool = True
    every_tokens: int | None = None


class Committer:
    """For one event loop."""

    def __init__(self, residence: Residence, archive: Archive, policy: CommitPolicy, observer: SessionObserver) -> None:
        self._residence, self._archive, self.policy, self._observer = residence, archive, policy, observer
        self._watched: set[Session] = set()

    async def commit(self, session: Session, *, anyhow: bool = False) -> None:
        """Saves what the store does not have yet; `anyhow` even if it has all. Nothing happens if the session is not
        here any more, or its state is lost. Goes on to its end if it is cancelled.

        Raises:
            SessionMoved: another server has saved a newer version; this one has let go of the session.
            StoreFull, StoreUnavailable: the session stays as it is, in memory.
            StateCorrupt: its state was found not to be finite, and is lost.
        """
        await completed(self._commit(session, anyhow))

    async def _commit(self, session: Session, anyhow: bool) -> None:
        async with session.saving:
            if session not in self._residence or session.resident is None:
                return
            if session.is_clean and not session.is_busy and not anyhow:
                return
            started, generator = time.monotonic(), self._residence.generator(session)
            source, moment = session.resident, await _moment(session, generator)
            is_new = anyhow or session.is_stale or not session.has_saved(Standing.of(moment.sequence))
            if moment.sequence.broken or not is_new:
                return
            session.tried = max(session.tried, session.saved.version if session.saved is not None else 0) + 1
            try:
                session.saved = await asyncio.to_thread(self._archive.save, session, moment, generator)
            except SessionMoved as error:
                self._residence.forget(session)
                raise SessionMoved(
                    "another server has gone on with this session; ask again, from where it is"
                ) from error
            except StateCorrupt:
                generator.engine.quarantine(source)
                raise
            self._observer.committed(session.model, time.monotonic() - started)

    def watch(self, session: Session) -> None:
        """Somebody uses the session."""
        self._watched.add(session)

    async def run(self) -> None:
        """Saves what nobody waits for: calls under way, those that were cut, and what could not be saved before."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            due = [session for session in self._watched if self._is_due(session)]
            if not await self.commit_all(due):
                await asyncio.sleep(_PAUSE_SECONDS)
            self._watched = {session for session in self._watched if self._may_be_due(session)}

    async def commit_all(self, sessions: list[Session]) -> bool:
        """Whether all could be saved; why one could not is only written down."""
        at_once = asyncio.Semaphore(_SAVES)

        async def saved(session: Session) -> bool:
            async with at_once:
                return await self._could_commit(session)

        return all(await asyncio.gather(*map(saved, sessions)))

    async def _could_commit(self, session: Session) -> bool:
        try:
            await self.commit(session)
        except Exception as error:  # others must be saved, and this one again
            ours = not isinstance(error, SSPError)
            log.warning("session %s... was not saved: %s", session.id[:8], error, exc_info=ours)
            return False
        return True

    def _may_be_due(self, session: Session) -> bool:
        if session not in self._residence or session.resident is None or session.resident.broken:
            return False
        return session.is_in_use or self._is_due(session)

    def _is_due(self, session: Session) -> bool:
        if session.resident is None or session.is_stale:
            return session.resident is not None
        if not session.is_busy:
            return self.policy.when_idle and not session.pins and not session.is_clean
        every = self.policy.every_tokens
        return every is not None and session.standing.position - session.committed_position >= every


async def _moment(session: Session, generator: Generator) -> Moment:
    """All copies are asked for at once, so that none knows of anything that comes after."""
    checkpoints = dict(session.checkpoints)
    unsaved = {
        name: kept.sequence
        for name, kept in checkpoints.items()
        if kept.saved_at is None and kept.sequence is not None and not kept.is_lost
    }
    futures = [generator.engine.copied(sequence) for sequence in (session.sequence, *unsaved.values())]
    copy, *copies = await asyncio.gather(*map(asyncio.wrap_future, futures))
    return Moment(sequence=copy, checkpoints=checkpoints, copies=dict(zip(unsaved, copies, strict=True)))
