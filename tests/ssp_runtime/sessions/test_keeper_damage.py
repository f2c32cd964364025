"""States and snapshots that are damaged."""

import pytest

from ssp_runtime.errors import (
    SnapshotCorrupt,
    StateCorrupt,
    UnknownSession,
)
from ssp_runtime.sessions.stores import Stored
from tests.ssp_runtime.sessions.keeper_harness import PROMPT, Home, checked, home
from tests.ssp_runtime.sessions.oracle import Known
from tests.ssp_runtime.sessions.shared_store import SharedStore


async def poison(made: Home, session: str) -> None:
    """The state is not finite any more, and no token has shown it yet."""
    found = await made.session(session)
    await made.append(session, PROMPT)  # brings it into the pool
    made.generator.engine.pool.row(found.sequence)["limbs"].fill_(float("nan"))
    found.sequence.version += 1


async def test_a_state_that_is_not_finite_is_never_saved() -> None:
    store, known, mate = SharedStore(), Known(), Known()
    async with home(store) as made:
        session, other = await made.open(), await made.open()
        for each, tokens in ((session, known), (other, mate)):
            await checked(made, each, tokens)
        known.checkpoint("sound")
        await made.checkpoint(session, "sound")
        await poison(made, session)
        stored = dict(store.kept)
        for _ in range(2):
            with pytest.raises(StateCorrupt):
                await made.commit(session)
                await made.append(session, PROMPT)
        assert store.kept == stored
        with pytest.raises(StateCorrupt, match="rewind it"):
            await made.fork(session)
        await checked(made, other, mate)
        known.rewind("sound")
        await made.rewind(session, "sound")
        await checked(made, session, known)
    async with home(store) as again:
        await checked(again, session, known)


async def test_a_checkpoint_that_is_not_finite_harms_nothing_else() -> None:
    store, known = SharedStore(), Known()
    async with home(store) as made:
        session = await made.open()
        await checked(made, session, known)
        known.checkpoint("sound")
        await made.checkpoint(session, "sound")
        await poison(made, session)
        with pytest.raises(StateCorrupt):
            await made.checkpoint(session, "lost")
        await made.rewind(session, "sound")
        known.rewind("sound")
        await checked(made, session, known)
        assert (await made.session(session)).is_clean
        await made.put_away()
        assert list((await made.session(session)).checkpoints) == ["sound"]
        await checked(made, session, known)


async def test_a_damaged_snapshot_is_told() -> None:
    store = SharedStore()
    async with home(store) as made:
        session = await made.open()
        await made.put_away()
        version, data = store.kept[session].version, bytearray(store.kept[session].data)
        data[-1] ^= 1
        store.kept[session] = Stored(version, bytes(data))
        with pytest.raises(SnapshotCorrupt):
            await made.append(session, PROMPT)
        del store.kept[session]
        with pytest.raises(UnknownSession):
            await made.append(session, PROMPT)
