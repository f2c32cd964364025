"""The folder of a disk store: what lies in it, and what is left of it after damage and death."""

import errno
import os
import random
import stat
from collections.abc import Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ssp_runtime.errors import SessionMoved, SnapshotCorrupt, SSPError, StoreFull, StoreUnavailable
from ssp_runtime.sessions.stores import Store, open_store
from ssp_runtime.sessions.stores.disk import DiskStore
from tests.server.server_process import eventually
from tests.ssp_runtime.sessions import crashes
from tests.ssp_runtime.sessions.crashes import ROOM
from tests.ssp_runtime.sessions.snapshots import contents, snapshot

SIZE = len(snapshot(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made" / "sessions"


@pytest.fixture
def store(folder: Path) -> Iterator[DiskStore]:
    with DiskStore(folder, ROOM) as opened:
        yield opened


def save(store: Store, key: str, *numbers: int, ttl: float | None = None) -> None:
    """One version after the other, each with the number it is."""
    for number in numbers:
        store.save(key, snapshot(number), number, expected=store.version(key), ttl=ttl)


def snapshots(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(folder.glob("snapshots/*.safetensors"), key=lambda path: int(path.name.split(".")[1]))


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def lying_there(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def test_nobody_else_may_read(store: DiskStore, folder: Path) -> None:
    save(store, "a", 0)
    modes = {path.relative_to(folder).parts[0]: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"snapshots": 0o700, "quarantine": 0o700, "lock": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("snapshots/*")} == {0o600}


def test_names_are_the_servers(store: DiskStore, folder: Path) -> None:
    save(store, "../../secret", 0)
    assert contents(store) == {"../../secret": 0}
    assert len(list(folder.glob("snapshots/*"))) == 2
    assert not any("secret" in path.name for path in folder.parent.rglob("*"))


def test_one_server_at_a_time(store: DiskStore, folder: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"another server keeps its sessions in .*sessions; give each"):
        DiskStore(folder, ROOM)
    save(store, "a", 0)
    store.close()
    with open_store(str(folder), ROOM) as again:
        assert contents(again) == {"a": 0}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        DiskStore(tmp_path / "file", ROOM)


def test_two_versions_lie_there(store: DiskStore, folder: Path) -> None:
    save(store, "a", 0, 3, 4, 7)
    assert [path.read_bytes() for path in snapshots(folder)] == [snapshot(4), snapshot(7)]


def test_used_bytes_are_what_lies_there(store: DiskStore, folder: Path) -> None:
    draw = random.Random(0)
    for _ in range(200):
        key, kind = draw.choice("abc"), draw.randrange(6)
        if kind == 0:
            store.delete(key)
        elif kind == 1 and snapshots(folder):
            damage(draw.choice(snapshots(folder)))
        elif kind == 2:
            loaded(store, key)
        else:
            stored = store.version(key)
            store.save(key, snapshot(0, draw.randrange(100)), (stored or 0) + 1, expected=stored, ttl=1000)
        assert store.used_bytes == lying_there(folder)
    assert any(folder.glob("quarantine/*"))
    save(store, "short", 2000, ttl=0.001)
    eventually(lambda: store.version("short") is None)
    assert store.used_bytes == lying_there(folder)
    store.close()
    with DiskStore(folder, ROOM) as again:
        assert again.used_bytes == lying_there(folder) == store.used_bytes


def loaded(store: Store, key: str) -> None:
    try:
        store.load(key)
    except SnapshotCorrupt:
        assert store.version(key) is None


@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda path: os.truncate(path, 100)])
def test_a_damaged_version_is_put_aside_for_the_one_before(
    store: DiskStore, folder: Path, harm: object, caplog: pytest.LogCaptureFixture
) -> None:
    save(store, "a", 0, 1, 2)
    assert callable(harm)
    harm(snapshots(folder)[-1])
    damaged = snapshots(folder)[1:]
    assert contents(store) == {"a": 1} and store.version("a") == 1
    assert [path.name.split(".", 1)[1] for path in folder.glob("quarantine/*")] == [path.name for path in damaged]
    assert "damaged snapshot" in caplog.text
    save(store, "a", 2)
    assert contents(store) == {"a": 2}


def test_the_version_before_expires_when_the_damaged_one_would(store: DiskStore, folder: Path) -> None:
    save(store, "a", 0)
    save(store, "a", 1, ttl=0.3)
    damage(snapshots(folder)[-1])
    assert contents(store) == {"a": 0}
    store.close()
    with DiskStore(folder, ROOM) as again:
        eventually(lambda: again.version("a") is None)
        assert again.used_bytes == lying_there(folder)


def test_without_a_version_that_is_whole(store: DiskStore, folder: Path) -> None:
    save(store, "a", 0, 1)
    for path in snapshots(folder):
        damage(path)
    with pytest.raises(SnapshotCorrupt, match="every stored version"):
        store.load("a")
    assert store.load("a") is None and len(list(folder.glob("quarantine/*"))) == 3
    save(store, "a", 0)
    assert contents(store) == {"a": 0}


def test_a_key_that_is_damaged_loses_nothing(store: DiskStore, folder: Path) -> None:
    save(store, "a", 0, 1)
    save(store, "b", 5)
    store.close()
    (key,) = (path for path in folder.glob("snapshots/*.key") if path.read_text() == "a")
    key.write_text("b")
    with DiskStore(folder, ROOM) as again:
        assert contents(again) == {"b": 5} and len(list(folder.glob("quarantine/*"))) == 3


def test_leftovers_are_swept(store: DiskStore, folder: Path) -> None:
    save(store, "a", 0)
    store.close()
    (folder / "snapshots" / "x.tmp").write_bytes(b"half")
    (folder / "snapshots" / f"{'0' * 40}.key").write_bytes(b"of nothing")
    with DiskStore(folder, ROOM) as again:
        assert contents(again) == {"a": 0} and len(list(folder.glob("snapshots/*"))) == 2
        assert again.used_bytes == lying_there(folder)


def test_a_full_store_refuses_and_loses_nothing(tmp_path: Path) -> None:
    with DiskStore(tmp_path, 2 * SIZE + 2) as store:
        save(store, "a", 0)
        save(store, "b", 0)
        for key, expected in (("a", 0), ("b", 0), ("c", None)):
            with pytest.raises(StoreFull, match="close sessions"):
                store.save(key, snapshot(1), 1, expected=expected)
        assert contents(store) == {"a": 0, "b": 0} and store.used_bytes == lying_there(tmp_path) == 2 * SIZE + 2
        store.delete("b")
        save(store, "a", 1)
        assert contents(store) == {"a": 1}


def test_the_version_before_gives_way_where_that_helps(tmp_path: Path) -> None:
    with DiskStore(tmp_path, 2 * SIZE + 1) as store:
        save(store, "a", 0, 1, 2, 3)
        assert contents(store) == {"a": 3}
        with pytest.raises(StoreFull):
            store.save("a", snapshot(4, 1000), 4, expected=3)
        damage(snapshots(tmp_path)[-1])
        assert contents(store) == {"a": 2}


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreUnavailable)]
)
@pytest.mark.parametrize(("name", "place"), [("fsync", 0), ("fsync", 1), ("fsync", 2), ("replace", 0), ("replace", 1)])
def test_what_the_disk_refuses_leaves_all_as_it_was(
    store: DiskStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kind: type[SSPError],
    name: str,
    place: int,
) -> None:
    save(store, "a", 0, 1)
    used, call, calls = store.used_bytes, getattr(os, name), count()

    def fail(*arguments: object) -> None:
        if next(calls) == place:
            raise OSError(code, os.strerror(code))
        call(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(kind):
            save(store, "new", 2)
    assert contents(store) == {"a": 1} and store.used_bytes == used == lying_there(folder)
    save(store, "new", 2)
    assert contents(store) == {"a": 1, "new": 2}


def test_an_old_version_that_stays_harms_nobody(
    store: DiskStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, "a", 0, 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        save(store, "a", 2)
        with pytest.raises(StoreUnavailable):
            store.delete("a")
    assert contents(store) == {"a": 2} and len(snapshots(folder)) == 3
    save(store, "a", 3)
    assert len(snapshots(folder)) == 2 and store.used_bytes == lying_there(folder)


def test_a_lost_race_leaves_no_file(store: DiskStore, folder: Path) -> None:
    save(store, "a", 0)
    before = lying_there(folder)
    with pytest.raises(SessionMoved):
        store.save("a", snapshot(1), 1, expected=None)
    assert lying_there(folder) == before


def test_killed_before_any_call_of_the_operating_system(tmp_path: Path) -> None:
    states: list[dict[str, int]] = [{}]
    for operation in crashes.SCRIPT:
        states.append(operation.apply(states[-1]))
    for crash_at in count():
        folder = tmp_path / str(crash_at)
        with crashes.process(crashes.run_script, folder, crash_at) as (_, receiver):
            messages = list(iter(lambda: received(receiver), None))
        if messages[-1:] == ["the end"]:
            break
        done = len(messages)
        with DiskStore(folder, ROOM) as store:
            assert contents(store) in states[done : done + 2], crash_at
            assert store.used_bytes == lying_there(folder) and not any(folder.glob("*/*.tmp"))
            assert not any(folder.glob("quarantine/*"))
    assert crash_at > 35


def test_killed_at_any_moment(tmp_path: Path) -> None:
    draw, newest = random.Random(0), -1
    for _ in range(30):
        with crashes.process(crashes.save_for_ever, tmp_path) as (process, receiver):
            saved = [receiver.recv() for _ in range(draw.randrange(1, 8))]
            process.kill()
            saved += list(iter(lambda: received(receiver), None))
        assert saved == list(range(newest + 1, newest + 1 + len(saved)))
        with DiskStore(tmp_path, ROOM) as store:
            newest = store.version("a") or 0
            assert newest in (saved[-1], saved[-1] + 1) and contents(store) == {"a": newest}
            assert store.used_bytes == lying_there(tmp_path)
            assert not any(tmp_path.glob("quarantine/*"))


def received(receiver: Connection) -> object:
    """None once the other side is dead."""
    try:
        return receiver.recv()
    except EOFError:
        return None
