"""Makes room in memory: the longest unused sessions go to the store."""

import asyncio
import logging

from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import Exhausted, SSPError, StoreFull, StoreUnavailable
from ssp_runtime.sessions.committer import Committer
from ssp_runtime.sessions.residence import Residence
from ssp_runtime.sessions.session import Session

log = logging.getLogger(__name__)


class Room:
    """For one event loop. Whoever finds no room waits at most `patience` seconds for sessions in use to be left."""

    def __init__(self, residence: Residence, committer: Committer, patience: float) -> None:
        self._residence, self._committer, self._patience = residence, committer, patience
        self._turn = asyncio.Lock()  # who came first is served first
        self._freed = asyncio.Event()

    def freed(self) -> None:
        """A session may leave memory now that could not before, or has left it."""
        self._freed.set()

    async def make(self, generator: Generator) -> None:
        """One more state of this model has room in memory, until something else is awaited.

        Raises:
            Exhausted: all memory is in use.
            StoreFull, StoreUnavailable: what is in memory cannot be saved.
        """
        try:
            async with asyncio.timeout(self._patience), self._turn:
                while not self._residence.has_room(generator):
                    self._freed.clear()
                    if not await self._put_one_away():
                        await self._freed.wait()
        except TimeoutError:
            message = "the states of sessions that are in use fill the memory they may take; try again later"
            raise Exhausted(message, retry_after=5) from None

    async def _put_one_away(self) -> bool:
        """False if all are in use. Of a session in use, checkpoints may leave."""
        sessions, failure = self._residence.longest_unused(), None
        idle = [(session, self._residence.put_away) for session in sessions if not session.is_in_use]
        busy = [(session, self._residence.put_checkpoints_away) for session in sessions if len(session.sequences) > 1]
        for session, leave in (*idle, *busy):
            if failure is None:
                failure = await self._saved(session)
            if leave(session):
                return True
        if failure is not None:
            raise failure
        return False

    async def _saved(self, session: Session) -> SSPError | None:
        """Saves it if need be; why the store takes nothing, if it does not."""
        try:
            await self._committer.commit(session)
        except (StoreFull, StoreUnavailable) as error:
            return error
        except SSPError as error:
            log.warning("session %s... cannot leave memory: %s", session.id[:8], error)
        return None
