"""Keeps sessions in a store as well: they outlive the process, and those that memory has no room for lie there."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from ssp_runtime.completed import completed
from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import SessionExpired, SSPError, StoreUnavailable, UnknownSession
from ssp_runtime.sessions.archive import Archive
from ssp_runtime.sessions.committer import CommitPolicy, Committer
from ssp_runtime.sessions.keeper import Keeper, owned
from ssp_runtime.sessions.manager import SessionManager
from ssp_runtime.sessions.observer import SessionObserver
from ssp_runtime.sessions.room import Room
from ssp_runtime.sessions.session import Session, check_id

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.01


class StoreKeeper(Keeper):
    """A session is saved by whoever changed it, found again under its id, and brought back when it is used. A call that
    finds no room in memory waits at most `patience` seconds."""

    is_durable = True

    def __init__(
        self,
        manager: SessionManager,
        archive: Archive,
        policy: CommitPolicy,
        *,
        patience: float = 30.0,
        observer: SessionObserver | None = None,
    ) -> None:
        super().__init__(manager)
        self._archive, self._observer = archive, observer or SessionObserver()
        self._residence = manager.residence
        self._committer = Committer(manager.residence, archive, policy, self._observer)
        self._room = Room(manager.residence, self._committer, patience)
        self._finding: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._committer.run()), asyncio.create_task(self.model_comes())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._committer.commit_all(list(self._residence.longest_unused()))
        self._archive.close()

    @property
    def store_bytes(self) -> int | None:
        try:
            return self._archive.used_bytes
        except StoreUnavailable:
            return None

    # For calls

    @asynccontextmanager
    async def using(self, session_id: str, owner: str = "") -> AsyncIterator[Session]:
        session = await self._pinned(session_id, owner)
        try:
            self._committer.watch(session)
            yield session
        finally:
            self._unpin(session)

    async def found(self, session_id: str, owner: str = "") -> Session:
        async with self._lock(session_id):
            return owned(await self._found(session_id), owner)

    @asynccontextmanager
    async def room(self, generator: Generator) -> AsyncIterator[None]:
        await self._room.make(generator)
        yield

    async def checkpoint_in_memory(self, session: Session, name: str) -> None:
        while (kept := session.checkpoints.get(name)) is not None and kept.sequence is None:
            generator = self.manager.generator(session)
            sequence = await asyncio.to_thread(self._archive.load_checkpoint, session, kept, generator)
            await self._room.make(generator)
            if session.checkpoints.get(name) is kept and kept.sequence is None:
                self._residence.bring_checkpoint_back(session, kept, sequence)

    async def settled(self, session: Session) -> None:
        self._committer.watch(session)
        if self._committer.policy.when_idle:
            await self.commit(session)

    async def commit(self, session: Session) -> None:
        self._committer.watch(session)
        await self._committer.commit(session)
        self._room.freed()

    async def close(self, session_id: str, owner: str = "") -> Session:
        return await completed(self._close(session_id, owner))

    async def _close(self, session_id: str, owner: str) -> Session:
        async with self._lock(session_id):
            session = owned(await self._found(session_id), owner)
            self.manager.close(session_id)
            self._room.freed()
            async with session.saving:  # what is being saved goes too
                await asyncio.to_thread(self._archive.delete, session)
        return session

    # For models

    async def model_comes(self) -> None:
        if self._archive.is_shared:
            return  # they may be other servers'; each is found when it is asked for
        try:
            keys = await asyncio.to_thread(self._archive.keys)
            for session_id in [key for key in keys if "/" not in key]:
                await self._list(session_id)
            sessions = {session.id: session for session in self.sessions_of("")}
            await asyncio.to_thread(self._archive.delete_strays, keys, sessions)
        except StoreUnavailable as error:
            log.warning("not all sessions of the store are listed: %s", error)

    async def _list(self, session_id: str) -> None:
        try:
            async with self._lock(session_id):
                await self._found(session_id)
        except SSPError as error:
            log.warning("session %s... of the store cannot be gone on with: %s", session_id[:8], error)

    async def model_goes(self, model: str) -> int:
        for session in self.sessions_of(model):
            async with self._lock(session.id):
                await self._let_go(session)
        return 0

    async def _let_go(self, session: Session) -> None:
        generator = self.manager.generator(session)
        while session.is_busy and session.sequence.last_call is not None:
            generator.engine.cancel(session.sequence.last_call)
            await asyncio.sleep(_PAUSE_SECONDS)
        await self.commit(session)
        self._residence.forget(session)

    # Finding

    def _lock(self, session_id: str) -> asyncio.Lock:
        return self._finding.setdefault(session_id, asyncio.Lock())

    async def _pinned(self, session_id: str, owner: str) -> Session:
        async with self._lock(session_id):
            session = owned(await self._found(session_id), owner)
            session.pins += 1
            try:
                await self._bring_back(session)
            except BaseException:
                self._unpin(session)
                raise
            return session

    def _unpin(self, session: Session) -> None:
        session.pins -= 1
        self._residence.used(session)
        self._room.freed()

    async def _found(self, session_id: str) -> Session:
        check_id(session_id)
        session = self._known(session_id)
        if session is not None and await self._is_newest(session):
            return session
        try:
            found = await asyncio.to_thread(self._archive.load, session_id)
        except UnknownSession:
            return self.manager.get(session_id)  # which knows whether it has expired
        session = found.session()
        if session.has_expired:
            raise SessionExpired("the session was not used for as long as its ttl; open another")
        return self._residence.adopt(session, self._archive.model_of(session))

    def _known(self, session_id: str) -> Session | None:
        try:
            return self.manager.get(session_id)
        except UnknownSession as error:
            if isinstance(error, SessionExpired) and not self._archive.is_shared:
                raise
            return None  # another server may have used it since

    async def _is_newest(self, session: Session) -> bool:
        """Whether no other server has gone on with it; if one has, this one lets go of it."""
        if not self._archive.is_shared:
            return True
        async with session.saving:
            stored = await asyncio.to_thread(self._archive.version, session.id)
        if stored == (session.saved.version if session.saved is not None else None):
            return True
        if session.is_clean and not session.is_in_use:
            self._residence.forget(session)
            return False
        await self._committer.commit(session, anyhow=True)  # it may be what this one saved, and was not told
        return True

    async def _bring_back(self, session: Session) -> None:
        if session.resident is not None:
            return
        started, generator = time.monotonic(), self.manager.generator(session)
        try:
            found = await asyncio.to_thread(self._archive.load, session.id)
        except UnknownSession:
            self._residence.forget(session)
            raise
        await self._room.make(generator)
        self._residence.bring_back(session, found.sequence, found.saved, found.checkpoints)
        self._observer.restored(session.model, time.monotonic() - started)
