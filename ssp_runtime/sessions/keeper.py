"""Keeps sessions: finds them for calls, and where there is a store, past memory and past the process.

async with keeper.using(session_id) as session:   # it is in memory, and stays there
    ...calls of the manager...
    await keeper.settled(session)                  # before the caller is told that it is done
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import UnknownSession
from ssp_runtime.sessions.manager import SessionManager
from ssp_runtime.sessions.session import Session

_ALL = 2**31


class Keeper:
    """Without a store: sessions live as long as the process, and all of them in memory. For one event loop."""

    is_durable = False  # what is open when the server stops, or a model goes, can be gone on with

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager

    async def start(self) -> None:
        """Begins to keep."""

    async def stop(self) -> None:
        """Ends; no call is under way any more."""

    @property
    def store_bytes(self) -> int | None:
        """Bytes that the store takes, if there is one that answers; may block."""
        return None

    @asynccontextmanager
    async def using(self, session_id: str, owner: str = "") -> AsyncIterator[Session]:
        """A session that is in memory as long as the block lasts.

        Raises:
            UnknownSession: there is none of that id, or it is another owner's.
            SessionMoved: another server has gone on with it; ask again.
        """
        yield await self.found(session_id, owner)

    async def found(self, session_id: str, owner: str = "") -> Session:
        """A session, in memory or not. Raises as `using`."""
        return owned(self.manager.get(session_id), owner)

    @asynccontextmanager
    async def room(self, generator: Generator) -> AsyncIterator[None]:  # noqa: ARG002  # without a store there is no waiting
        """One more state of a model has room in memory within the block, which must not await anything."""
        yield

    async def checkpoint_in_memory(self, session: Session, name: str) -> None:
        """Sees to it that the session can be rewound to a checkpoint, if it has it, until something else is awaited."""

    async def settled(self, session: Session) -> None:
        """A call has changed the session; it is saved if sessions are to be saved so soon."""

    async def commit(self, session: Session) -> None:
        """Saves what the store does not have yet; a call under way is saved as if it were cut now."""

    async def close(self, session_id: str, owner: str = "") -> Session:
        """Ends a session wherever it is; a call under way on it is cancelled."""
        owned(self.manager.get(session_id), owner)
        return self.manager.close(session_id)

    async def model_comes(self) -> None:
        """A model was loaded; its sessions that lie in the store are listed again."""

    async def model_goes(self, model: str) -> int:
        """Frees the memory of a model's sessions; how many of them that has ended."""
        sessions = self.sessions_of(model)
        for session in sessions:
            with suppress(UnknownSession):  # its client was quicker
                await self.close(session.id, session.owner)
        return len(sessions)

    def sessions_of(self, model: str) -> list[Session]:
        return self.manager.list(model, "", _ALL)[0]


def owned(session: Session, owner: str) -> Session:
    """Raises `UnknownSession` if it is another owner's."""
    if session.owner != owner:
        raise UnknownSession("no session has this session_id; it was closed, or opened on another server")
    return session
