"""Two servers with one store."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from ssp_runtime.errors import (
    SessionMoved,
    UnknownSession,
)
from tests.ssp_runtime.sessions.keeper_harness import ON_REQUEST, PROMPT, checked, home, opened, params
from tests.ssp_runtime.sessions.oracle import Known
from tests.ssp_runtime.sessions.shared_store import SharedStore


async def test_a_session_that_moved_away_and_back_is_never_answered_from_an_old_state(redis_url: str) -> None:
    async with home(opened(redis_url)) as first, home(opened(redis_url)) as second:
        session, known = await first.open(), Known()
        for each in (first, second, first, first, second, second, first):
            await checked(each, session, known)
        known.checkpoint("a")
        await first.checkpoint(session, "a")
        await checked(second, session, known)
        known.rewind("a")
        await second.rewind(session, "a")
        await second.drop(session, "a")
        await checked(first, session, known)
        assert not (await first.session(session)).checkpoints
        await second.close(session)
        with pytest.raises(UnknownSession):
            await first.session(session)


@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.slow)])
async def test_of_two_servers_that_race_for_a_session_one_wins(redis_url: str, rounds: int) -> None:
    known = Known()
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(home(opened(redis_url), policy=ON_REQUEST)) for _ in range(2)]
        session = await servers[0].open()
        await servers[0].commit(session)
        for round_number in range(rounds):
            prompts = [[1, 1 + round_number % 200], [2, 1 + round_number % 200]]
            branches = [known.copied() for _ in servers]
            for server, branch, prompt in zip(servers, branches, prompts, strict=True):
                await checked(server, session, branch, prompt)
            held = [server.manager.get(session) for server in servers]
            commits = [server.keeper.commit(each) for server, each in zip(servers, held, strict=True)]
            outcomes = await asyncio.gather(*commits, return_exceptions=True)
            won = [at for at, outcome in enumerate(outcomes) if outcome is None]
            assert len(won) == 1 and isinstance(outcomes[1 - won[0]], SessionMoved), outcomes
            known = branches[won[0]]
            with pytest.raises(UnknownSession):
                servers[1 - won[0]].manager.get(session)


async def test_a_call_under_way_on_a_session_that_moved_is_told_so() -> None:
    store, known = SharedStore(), Known()
    async with home(store) as first, home(store) as second:
        session = await first.open()
        await checked(first, session, known)
        async with first.keeper.using(session) as held:
            await checked(second, session, known)
            with pytest.raises(SessionMoved):
                await first.append(session, PROMPT)
            with pytest.raises(SessionMoved):
                first.manager.start(held, PROMPT, params())
        await checked(first, session, known)
