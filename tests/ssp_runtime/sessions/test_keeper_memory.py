"""Sessions that leave memory, and those that expire."""

import asyncio
import time
from dataclasses import replace

import pytest

from ssp_runtime.errors import (
    Exhausted,
    SessionExpired,
    StoreUnavailable,
)
from tests.ssp_runtime.sessions.keeper_harness import ON_REQUEST, PROMPT, checked, home
from tests.ssp_runtime.sessions.oracle import Known
from tests.ssp_runtime.sessions.shared_store import OwnStore, SharedStore


async def test_a_session_that_is_asked_for_while_it_leaves_stays() -> None:
    store, known = OwnStore(), Known()
    async with home(store, policy=ON_REQUEST, num_states=1) as made:
        session = await made.open()
        await checked(made, session, known)
        store.gate.clear()
        opening = asyncio.create_task(made.open())
        await store.reached()
        async with made.keeper.using(session) as held:
            store.gate.set()
            await made.keeper.commit(held)
            assert held.resident is not None and not opening.done()
        await opening
        assert held.resident is None
        await checked(made, session, known)


async def test_who_finds_all_memory_in_use_waits_and_is_refused() -> None:
    store = SharedStore()
    async with home(store, num_states=1, patience=0.05) as made:
        session = await made.open()
        async with made.keeper.using(session):
            with pytest.raises(Exhausted, match="in use"):
                await made.open()
        await made.open()


async def test_memory_is_freed_by_what_is_clean_while_the_store_is_away() -> None:
    store = SharedStore()
    async with home(store, num_states=2, policy=ON_REQUEST) as made:
        clean, dirty = await made.open(), await made.open()
        await made.commit(clean)
        await made.append(dirty, PROMPT)
        (await made.session(clean)).touch()
        store.refuse_sessions(lambda: StoreUnavailable("away"))
        third = await made.open()
        assert (await made.session(clean)).resident is None
        with pytest.raises(StoreUnavailable):
            await made.open()
        store.fault = lambda _: None
        await made.append(third, PROMPT)


async def test_checkpoints_of_a_session_in_use_leave_memory() -> None:
    store, known = SharedStore(), Known()
    async with home(store, num_states=3) as made:
        session = await made.open()
        async with made.keeper.using(session):
            for name in "abcde":
                await checked(made, session, known)
                known.checkpoint(name)
                await made.checkpoint(session, name)
                assert made.bytes_in_memory() <= made.budget
            for name in "edcba":
                known.rewind(name)
                await made.rewind(session, name)
                await checked(made, session, known)


@pytest.mark.parametrize(("num_sessions", "num_states"), [(40, 4), pytest.param(2000, 64, marks=pytest.mark.slow)])
async def test_more_sessions_than_memory_holds(num_sessions: int, num_states: int) -> None:
    store, most, num_tokens = OwnStore(), 0, 0
    async with home(store, slots=8, num_states=num_states) as made:

        def watch(_: object) -> None:
            nonlocal most, num_tokens
            num_tokens += 1
            if num_tokens % 8 == 0:  # a census takes longer than a token
                most = max(most, made.bytes_in_memory())

        made.hooks.on_token = watch
        sessions = [await made.open() for _ in range(num_sessions)]
        known = {session: Known() for session in sessions}
        for i, session in enumerate(sessions):
            await made.append(session, [1 + i % 200, 1 + i // 200])
            known[session].append([1 + i % 200, 1 + i // 200])
        for _ in range(2):
            for start in range(0, num_sessions, num_states):
                batch = sessions[start : start + num_states]
                await asyncio.gather(*(checked(made, each, known[each], max_tokens=2) for each in batch))
        census = made.manager.census()
        assert sum(census.sessions.values()) == num_sessions
        assert 0 < most <= made.budget
        assert sum(n for (tier, _), n in census.sessions.items() if tier != "store") <= num_states


async def test_a_session_that_lies_in_the_store_expires_too() -> None:
    store = OwnStore()
    async with home(store) as made:
        session, kept = await made.open(ttl=60), await made.open(ttl=60)
        await made.put_away()
        for each, seconds in ((session, 61), (kept, 59)):
            found = await made.session(each)
            assert found.saved is not None
            standing = replace(found.saved.standing, last_used=found.saved.standing.last_used - seconds)
            found.saved = replace(found.saved, standing=standing)
        with pytest.raises(SessionExpired):
            await made.append(session, PROMPT)
        await made.append(kept, PROMPT)
        assert made.watch.expiries == 1


async def test_a_session_that_another_server_uses_does_not_expire_here() -> None:
    store = SharedStore()
    async with home(store) as made, home(store) as other:
        session, known = await made.open(ttl=60), Known()
        (await made.session(session)).sequence.last_used -= 61
        await checked(other, session, known)
        await checked(made, session, known)


async def test_use_that_changes_nothing_keeps_a_session_alive_in_the_store() -> None:
    store = SharedStore()
    async with home(store) as made:
        session = await made.open(ttl=60)
        await made.append(session, PROMPT)
        found = await made.session(session)
        assert found.saved is not None and found.is_clean
        found.saved = replace(found.saved, standing=replace(found.saved.standing, last_used=0.0))
        await made.peek(session, [1])
        assert not found.is_clean
        await made.put_away()
        assert found.resident is None and found.saved.standing.last_used > 0.0
        await made.append(session, PROMPT)
        found.sequence.last_used += 5  # not so much that it is saved for that
        await made.put_away()
        assert found.standing.last_used > time.time() + 1


async def test_checkpoints_in_the_store_live_as_long_as_their_session(monkeypatch: pytest.MonkeyPatch) -> None:
    store, lifetimes = SharedStore(), list[tuple[bool, float | None]]()
    save = store.save

    def noted(key: str, data: bytes, version: int, *, expected: int | None, ttl: float | None = None) -> None:
        lifetimes.append(("/" in key, ttl))
        save(key, data, version, expected=expected, ttl=ttl)

    monkeypatch.setattr(store, "save", noted)
    async with home(store) as made:
        session = await made.open(ttl=60)
        await made.checkpoint(session, "a")
        await made.append(session, PROMPT)
        (kept,) = (await made.session(session)).checkpoints.values()
        assert kept.saved_at is not None
        kept.saved_at -= 61
        await made.append(session, PROMPT)
    assert [ttl for is_checkpoint, ttl in lifetimes if is_checkpoint] == [3780.0, 3780.0]
    assert {ttl for is_checkpoint, ttl in lifetimes if not is_checkpoint} == {3660.0}
