"""What is saved and when, and what happens when somebody wants something meanwhile."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from ssp_runtime.errors import (
    SSPError,
    StoreFull,
    StoreUnavailable,
    UnknownSession,
)
from tests.ssp_runtime.engine.engine_harness import PATIENCE
from tests.ssp_runtime.sessions.keeper_harness import ON_REQUEST, PROMPT, Home, checked, home, params
from tests.ssp_runtime.sessions.oracle import Known
from tests.ssp_runtime.sessions.shared_store import OwnStore, SharedStore


async def test_a_commit_of_a_call_under_way() -> None:
    store, known = SharedStore(), Known()
    made = Home(store)
    await made.start()
    session, sampling = await made.open(), params(max_tokens=50)
    wanted = known.generate(PROMPT, sampling, "r")
    async with made.keeper.using(session) as held:
        call = made.call(held, PROMPT, sampling, "r")
        await made.until(lambda: call.num_unread == 32)  # it runs no further ahead
        await made.keeper.commit(held)
        version = held.standing.version
        assert held.is_busy and held.committed_position == held.standing.position == 4 + 32
        await made.keeper.commit(held)
        assert held.saved is not None and held.saved.version == 2, "nothing was new"
        await made.crash()
    async with home(store) as again:
        assert (await again.session(session)).standing.version == version
        assert await again.generate(session, PROMPT, sampling, "r") == wanted


async def test_what_is_delivered_after_a_commit_is_not_delivered_again() -> None:
    store, known = SharedStore(), Known()
    async with home(store, policy=ON_REQUEST) as made:
        session = await made.open()
        wanted = known.generate(PROMPT, params())
        async with made.keeper.using(session) as held:
            call = made.call(held, PROMPT, params())
            await made.until(lambda: call.finish_reason is not None)
            await made.keeper.commit(held)
            call.take(2)
        known.undelivered = wanted[2:]
        await made.put_away()
        await checked(made, session, known)


async def test_text_that_a_stop_might_have_claimed_is_not_lost_in_a_crash() -> None:
    store, x, y = SharedStore(), ord("x"), ord("y")
    made = Home(store)
    await made.start()
    session = await made.open()
    async with made.keeper.using(session) as held:
        stopping = params(max_tokens=50, stop=["x" * 40], logit_bias={x: 100.0})
        call = made.call(held, PROMPT, stopping)
        await made.until(lambda: call.num_unread == 32)
        await made.keeper.commit(held)
        await made.crash()
    async with home(store) as again, again.keeper.using(session) as held:
        call = again.call(held, PROMPT, params(max_tokens=1, logit_bias={y: 100.0}))
        await again.until(lambda: call.finish_reason is not None)
        assert "".join(progress.text for progress in call.take(100)) == "x" * 32 + "y"


async def test_a_call_that_begins_during_a_commit_is_saved_by_the_next() -> None:
    store, known = OwnStore(), Known()
    async with home(store, policy=ON_REQUEST) as made:
        session = await made.open()
        await checked(made, session, known)
        store.gate.clear()
        saving = asyncio.create_task(made.commit(session))
        await store.reached()
        await checked(made, session, known)
        known.checkpoint("a")
        rewinding = asyncio.create_task(made.checkpoint(session, "a"))
        await rewinding
        known.rewind("a")
        await made.rewind(session, "a")
        store.gate.set()
        await saving
        assert not (await made.session(session)).is_clean
    async with home(store) as again:
        await checked(again, session, known)


async def test_a_rewind_during_a_commit_mixes_nothing() -> None:
    store, known, engine_at_work = OwnStore(), Known(), threading.Event()
    made = Home(store, policy=ON_REQUEST)
    await made.start()
    session = await made.open()
    await checked(made, session, known)
    known.checkpoint("a")
    await made.checkpoint(session, "a")
    await checked(made, session, known)
    held, engine = await made.session(session), made.generator.engine
    engine._mailbox.post(lambda: hold(engine_at_work))
    saving = asyncio.create_task(made.keeper.commit(held))
    for _ in range(10):  # it asks the engine for a copy, and waits
        await asyncio.sleep(0)
    made.manager.rewind(held, "a")
    engine_at_work.set()
    await saving
    assert not held.is_clean
    await made.crash()
    async with home(store) as again:
        assert (await again.session(session)).standing.position == len(known.tokens)
        await checked(again, session, known)


async def test_a_commit_goes_on_when_who_waits_for_it_is_cancelled() -> None:
    store, known = SharedStore(), Known()
    async with home(store, policy=ON_REQUEST) as made:
        session = await made.open()
        await checked(made, session, known)
        store.gate.clear()
        saving = asyncio.create_task(made.commit(session))
        await store.reached()
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
        following = asyncio.create_task(made.commit(session))
        store.gate.set()
        await following
        await checked(made, session, known)
        assert (await made.session(session)).saved is not None


@pytest.mark.parametrize("error", [StoreUnavailable, StoreFull])
async def test_what_cannot_be_saved_stays_in_memory(error: Callable[[str], SSPError]) -> None:
    store, known = SharedStore(), Known()
    async with home(store) as made:
        session = await made.open()
        wanted = known.generate(PROMPT, params(), "r")
        store.refuse_sessions(lambda: error("not now"))
        for _ in range(2):
            with pytest.raises((StoreUnavailable, StoreFull), match="not now"):
                await made.generate(session, PROMPT, params(), "r")
        assert not (await made.session(session)).is_clean
        store.fault = lambda _: None
        assert await made.generate(session, PROMPT, params(), "r") == wanted
        assert (await made.session(session)).standing.position == len(known.tokens)
        await checked(made, session, known)


async def test_a_save_whose_answer_was_lost_is_this_servers_own() -> None:
    store, known = SharedStore(), Known()
    async with home(store) as made, home(store) as other:
        session = await made.open()
        known.undelivered = known.generate(PROMPT, params(), "r")
        store.loses_answers = True
        with pytest.raises(StoreUnavailable):
            await made.generate(session, PROMPT, params(), "r")
        store.loses_answers = False
        await made.session(session)
        await checked(made, session, known)
        await checked(other, session, known)


async def test_a_checkpoint_made_anew_does_not_replace_the_one_of_a_saved_session() -> None:
    store, known = OwnStore(), Known()
    made = Home(store)
    await made.start()
    session = await made.open()
    await checked(made, session, known)
    known.checkpoint("a")
    await made.checkpoint(session, "a")
    await checked(made, session, known)
    before = known.copied()
    store.refuse_sessions(lambda: StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await made.checkpoint(session, "a")
    await made.crash()
    store.fault = lambda _: None
    async with home(store) as again:
        before.rewind("a")
        await again.rewind(session, "a")
        await checked(again, session, before)


async def test_dropped_checkpoints_leave_the_store() -> None:
    store = OwnStore()
    async with home(store) as made:
        session = await made.open()
        for name in ("a", "a", "b"):
            await made.checkpoint(session, name)
        assert len(store.kept) == 3
        await made.put_away()
        await made.drop(session, "a")
        assert len(store.kept) == 2
        await made.close(session)
        assert not store.kept


async def test_a_session_closed_while_it_is_saved_does_not_come_back() -> None:
    store = OwnStore()
    async with home(store, policy=ON_REQUEST) as made:
        session = await made.open()
        await made.append(session, PROMPT)
        store.gate.clear()
        saving = asyncio.create_task(made.keeper.commit(await made.session(session)))
        await store.reached()
        held = await made.session(session)
        closing = asyncio.create_task(made.close(session))
        late = asyncio.create_task(made.keeper.commit(held))
        store.gate.set()
        await asyncio.gather(saving, closing, late)
        assert not store.kept
        with pytest.raises(UnknownSession):
            await made.session(session)


async def test_a_close_that_the_store_did_not_hear_is_repeated() -> None:
    store = SharedStore()
    async with home(store) as made:
        session = await made.open()
        held = await made.session(session)
        store.deletes = False
        with pytest.raises(StoreUnavailable):
            await made.close(session)
        store.deletes = True
        await made.close(session)
        assert not store.kept and held.resident is not None


def hold(released: threading.Event) -> None:
    assert released.wait(PATIENCE)
