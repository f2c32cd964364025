"""A keeper with its model, as a server has them, and what clients ask of it, without the wire."""

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Ids
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.config import EngineConfig
from ssp_runtime.engine.generator import GenerationLimits, Generator
from ssp_runtime.engine.progress import Progress
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.errors import UnknownModel
from ssp_runtime.sessions import snapshot, transfer
from ssp_runtime.sessions.archive import Archive
from ssp_runtime.sessions.committer import CommitPolicy
from ssp_runtime.sessions.manager import SessionManager
from ssp_runtime.sessions.observer import SessionObserver
from ssp_runtime.sessions.roster import SessionLimits
from ssp_runtime.sessions.session import Session
from ssp_runtime.sessions.store_keeper import StoreKeeper
from ssp_runtime.sessions.stores import Store, open_store
from tests.ssp_runtime.engine.engine_harness import PATIENCE, Hooks
from tests.ssp_runtime.sessions import hash_chain
from tests.ssp_runtime.sessions.oracle import Known

MODEL = "chain"
PROMPT = (5, 6, 7)
ON_REQUEST = CommitPolicy(when_idle=False)


class Watch(SessionObserver):
    """Counts what sessions go through."""

    def __init__(self) -> None:
        self.restores = self.commits = self.expiries = 0

    def committed(self, model: str, seconds: float) -> None:  # noqa: ARG002
        self.commits += 1

    def restored(self, model: str, seconds: float) -> None:  # noqa: ARG002
        self.restores += 1

    def expired(self, model: str) -> None:  # noqa: ARG002
        self.expiries += 1


class Home:
    """Make it within an event loop. `num_states` is how many memory holds."""

    def __init__(
        self,
        store: Store,
        *,
        slots: int = 4,
        num_states: int = 100,
        policy: CommitPolicy | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.hooks, self.watch, self.store = Hooks(), Watch(), store
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        config = EngineConfig(num_slots=slots)
        self.generator = Generator(
            MODEL, hash_chain.artifact(), config, GenerationLimits(), deliver=self._deliver, observer=self.hooks
        )
        self.budget = num_states * self.generator.state_bytes
        self.has_model = True
        self.manager = SessionManager(SessionLimits(max_state_bytes=self.budget), durable=True, observer=self.watch)
        self.keeper = StoreKeeper(
            self.manager, Archive(store, self._find), policy or CommitPolicy(), patience=patience, observer=self.watch
        )

    async def start(self) -> None:
        self.generator.start()
        await self.keeper.model_comes()
        await self.keeper.start()

    async def stop(self) -> None:
        """In good order: everything is saved, and the store closed."""
        await self.keeper.stop()
        await asyncio.to_thread(self.generator.stop)

    async def crash(self) -> None:
        """Only what the store has stays."""
        for session in self.manager.list("", "", 1000)[0]:
            self.manager.residence.forget(session)
            async with session.saving:
                pass
        await self.stop()

    # What clients ask for

    async def open(self, **given: Any) -> str:
        async with self.keeper.room(self.generator):
            session = self.manager.open(self.generator, **given)
        await self.keeper.settled(session)
        return session.id

    async def append(self, session_id: str, prompt: Ids[int], request_id: str = "") -> None:
        async with self.keeper.using(session_id) as session:
            call = self.manager.start(session, prompt, None, CallOptions(request_id=request_id))
            await self.until(lambda: call.finish_reason is not None)
            await self.keeper.settled(session)

    async def generate(
        self, session_id: str, prompt: Ids[int], params: SamplingParams, request_id: str = ""
    ) -> list[int]:
        """The tokens that a reader gets, who reads to the end."""
        async with self.keeper.using(session_id) as session:
            call = self.call(session, prompt, params, request_id)
            return tokens_of(await self._read(call, session))

    def call(self, session: Session, prompt: Ids[int], params: SamplingParams, request_id: str = "") -> Call:
        """A call that nobody reads yet."""
        return self.manager.start(session, prompt, params, CallOptions(request_id=request_id))

    async def leave(
        self, session_id: str, prompt: Ids[int], params: SamplingParams, *, after: int, taken: int, request_id: str
    ) -> list[int]:
        """A reader gets `taken` tokens and goes when `after` are computed. What it got."""
        self.hooks.on_token = lambda call: self.generator.engine.cancel(call) if call.num_generated == after else None
        async with self.keeper.using(session_id) as session:
            call = self.call(session, prompt, params, request_id)
            await self.until(lambda: call.finish_reason is not None)
            self.hooks.reset()
            return tokens_of(call.take(taken) if taken else [])

    async def step(self, session_id: str, tokens: Ids[int]) -> np.ndarray:
        """The logits after each token."""
        async with self.keeper.using(session_id) as session:
            call = self.manager.step(session, CallOptions())
            self.generator.engine.feed(call, list(tokens), last=True)
            progress = await self._read(call, session)
            return np.concatenate([each.outputs for each in progress if each.outputs is not None])

    async def fork(self, session_id: str, request_id: str = "") -> str:
        async with self.keeper.using(session_id) as session:
            async with self.keeper.room(self.generator):
                forked = self.manager.fork(session, request_id=request_id)
            await self.keeper.settled(forked)
            return forked.id

    async def checkpoint(self, session_id: str, name: str) -> None:
        async with self.keeper.using(session_id) as session:
            async with self.keeper.room(self.generator):
                self.manager.checkpoint(session, name)
            await self.keeper.settled(session)

    async def rewind(self, session_id: str, name: str) -> None:
        async with self.keeper.using(session_id) as session:
            await self.keeper.checkpoint_in_memory(session, name)
            self.manager.rewind(session, name)
            await self.keeper.settled(session)

    async def drop(self, session_id: str, name: str) -> None:
        async with self.keeper.using(session_id) as session:
            self.manager.drop_checkpoint(session, name)
            await self.keeper.settled(session)

    async def peek(self, session_id: str, continuation: Ids[int]) -> list[float]:
        async with self.keeper.using(session_id) as session:
            (call,) = self.manager.peek(session, [continuation])
            await self.until(lambda: call.finish_reason is not None)
            return call.scores

    async def commit(self, session_id: str) -> None:
        async with self.keeper.using(session_id) as session:
            await self.keeper.commit(session)

    async def exported(self, session_id: str) -> bytes:
        async with self.keeper.using(session_id) as session:
            copy = await asyncio.wrap_future(transfer.copied(session, self.generator))
            return transfer.pack(copy, self.generator)

    async def imported(self, data: bytes) -> str:
        return await self.open(start=transfer.restored(snapshot.read(data), self.generator))

    async def close(self, session_id: str) -> None:
        await self.keeper.close(session_id)

    # What tests look at

    async def put_away(self) -> None:
        """Every session that nobody uses lies in the store only."""
        for session in self.manager.residence.longest_unused():
            await self.keeper.commit(session)
            self.manager.residence.put_away(session)

    async def session(self, session_id: str) -> Session:
        return await self.keeper.found(session_id)

    def bytes_in_memory(self) -> int:
        return sum(size for (tier, _), size in self.manager.census().state_bytes.items() if tier != "store")

    # Waiting

    async def _read(self, call: Call, session: Session) -> list[Progress]:
        """As services do: what ends the call is told when the session is saved."""
        taken: list[Progress] = []
        while not taken or taken[-1].finish_reason is None:
            await self.until(lambda: call.num_unread > 0 or call.finish_reason is not None)
            taken += call.take(1_000_000)
            self.generator.engine.wake()
        try:
            if taken[-1].error is not None:
                raise taken[-1].error
            await self.keeper.settled(session)
        except Exception:
            call.put_back(taken)
            raise
        return taken

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                if not condition():
                    await self._news.wait()

    def _deliver(self, _: list[Call]) -> None:
        self._loop.call_soon_threadsafe(self._news.set)

    def _find(self, name: str) -> Generator:
        if name != MODEL or not self.has_model:
            raise UnknownModel(f"no model is called {name!r}")
        return self.generator


@asynccontextmanager
async def home(store: Store, **given: Any) -> AsyncIterator[Home]:
    made = Home(store, **given)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def checked(home: Home, session: str, known: Known, prompt: Ids[int] = PROMPT, **sampling: Any) -> None:
    """One more call, whose answer shows the state that it began with."""
    wanted = known.generate(prompt, params(**sampling))
    assert await home.generate(session, prompt, params(**sampling)) == wanted


def opened(url: str) -> Store:
    return open_store(url, 1 << 30)


def params(**given: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 0.0, "ignore_eos": True, "max_tokens": 4} | given)


def tokens_of(taken: Ids[Progress]) -> list[int]:
    return [token for progress in taken for token in progress.token_ids]
