"""After a restart or a crash every session is where it was, or where it was last committed."""

import asyncio

import pytest

from ssp_runtime.errors import (
    StoreUnavailable,
    UnknownSession,
)
from ssp_runtime.sessions.committer import CommitPolicy
from tests.ssp_runtime.engine.engine_harness import PATIENCE
from tests.ssp_runtime.sessions.keeper_harness import ON_REQUEST, PROMPT, Home, checked, home, opened, params
from tests.ssp_runtime.sessions.oracle import Known
from tests.ssp_runtime.sessions.shared_store import OwnStore, SharedStore


async def test_after_a_restart_everything_is_as_it_was(keeper_url: str) -> None:
    known, branch = Known(), Known()
    async with home(opened(keeper_url), policy=ON_REQUEST) as first:
        session = await first.open()
        await checked(first, session, known, temperature=1.0, seed=3)
        known.checkpoint("a")
        await first.checkpoint(session, "a")
        await checked(first, session, known)
        forked, branch = await first.fork(session), known.forked()
    async with home(opened(keeper_url), policy=ON_REQUEST) as again:
        found = await again.session(session)
        assert found.resident is None and found.committed_position == len(known.tokens)
        await checked(again, session, known)
        await checked(again, forked, branch)
        known.rewind("a")
        await again.rewind(session, "a")
        await checked(again, session, known)
        assert again.watch.restores == 2


async def test_a_crash_loses_what_was_not_committed() -> None:
    store, known = OwnStore(), Known()
    made = Home(store, policy=ON_REQUEST)
    await made.start()
    session = await made.open()
    await checked(made, session, known)
    await made.commit(session)
    before = known.copied()
    await checked(made, session, known)
    assert (await made.session(session)).committed_position == len(before.tokens)
    never = await made.open()
    await made.crash()
    async with home(store) as again:
        await checked(again, session, before)
        with pytest.raises(UnknownSession):
            await again.session(never)


async def test_a_crash_in_the_middle_of_a_call_and_its_retry() -> None:
    store, known = SharedStore(), Known()
    async with home(store) as before:
        session, sampling = await before.open(), params(max_tokens=60, temperature=1.0)
    made = Home(store, policy=CommitPolicy(every_tokens=8))
    await made.start()
    wanted = known.generate(PROMPT, sampling, "r")
    async with made.keeper.using(session) as held:
        call = made.call(held, PROMPT, sampling, "r")
        await made.until(lambda: call.num_unread == 32)  # it runs no further ahead
        async with asyncio.timeout(PATIENCE):
            while held.committed_position < 4 + 32 - 7:  # nobody asks for that
                await asyncio.sleep(0.005)
        assert held.is_busy
        await made.crash()
    async with home(store) as again:
        assert 4 + 32 - 7 <= (await again.session(session)).standing.position < len(known.tokens)
        assert await again.generate(session, PROMPT, sampling, "r") == wanted
        await checked(again, session, known)


async def test_opening_and_forking_are_repeated_after_a_restart() -> None:
    store = OwnStore()
    async with home(store) as made:
        session = await made.open(request_id="o")
        forked = await made.fork(session, request_id="f")
    async with home(store) as again:
        assert await again.open(request_id="o") == session
        assert await again.fork(session, request_id="f") == forked
        assert await again.open(request_id="p") != session


async def test_what_a_crash_left_behind_is_swept() -> None:
    store = OwnStore()
    made = Home(store)
    await made.start()
    session, gone = await made.open(), await made.open()
    await made.checkpoint(session, "kept")
    store.refuse_sessions(lambda: StoreUnavailable("away"))
    for each in (session, gone):
        with pytest.raises(StoreUnavailable):
            await made.checkpoint(each, "new")
    del store.kept[gone]
    await made.crash()
    assert len(store.kept) == 4
    store.fault = lambda _: None
    async with home(store) as again:
        assert len(store.kept) == 2
        await again.rewind(session, "kept")


async def test_sessions_of_a_model_that_goes_are_there_when_it_comes_back(keeper_url: str) -> None:
    known = Known()
    async with home(opened(keeper_url), policy=ON_REQUEST) as made:
        session = await made.open()
        await checked(made, session, known)
        assert await made.keeper.model_goes("another") == 0
        assert (await made.session(session)).resident is not None
        assert await made.keeper.model_goes("chain") == 0
        assert made.manager.list("", "", 9)[0] == [] and made.bytes_in_memory() == 0
        made.has_model = False
        await made.keeper.model_comes()
        made.has_model = True
        await made.keeper.model_comes()
        assert [each.id for each in made.manager.list("", "", 9)[0]] == (
            [session] if keeper_url.startswith("disk") else []
        )
        await checked(made, session, known)


async def test_a_call_under_way_when_its_model_goes_is_saved() -> None:
    store, known = SharedStore(), Known()
    async with home(store) as made:
        session, sampling = await made.open(), params(max_tokens=50)
        wanted = known.generate(PROMPT, sampling, "r")
        async with made.keeper.using(session) as held:
            call = made.call(held, PROMPT, sampling, "r")
            await made.until(lambda: call.num_unread == 32)
            await made.keeper.model_goes("chain")
        assert await made.generate(session, PROMPT, sampling, "r") == wanted
