"""What holds for every session store."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssp_runtime.errors import SessionMoved
from ssp_runtime.sessions.stores import Store, Stored, open_store
from tests.redis_server import RedisServer
from tests.server.server_process import eventually
from tests.ssp_runtime.sessions.snapshots import contents, number_of, snapshot

KEY = "r.0123/before"
NUM_THREADS = 6


@pytest.fixture(params=["disk", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return f"disk:{tmp_path / 'sessions'}"
    server: RedisServer = request.getfixturevalue("redis_server")
    return f"{server.url}?prefix={tmp_path.name}:"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url, 1 << 30) as opened:
        yield opened


def test_what_is_saved_is_loaded(store: Store) -> None:
    assert (store.load(KEY), store.version(KEY)) == (None, None)
    store.save(KEY, snapshot(1), 0, expected=None)
    store.save(KEY, snapshot(2), 5, expected=0)
    store.save("é", snapshot(3), 1, expected=None)
    assert store.load(KEY) == Stored(5, snapshot(2)) and store.version(KEY) == 5
    assert contents(store) == {KEY: 2, "é": 3}


@pytest.mark.parametrize(("stored", "expected"), [(None, 0), (0, None), (7, None), (7, 6), (7, 8)])
def test_another_version_is_not_overwritten(store: Store, stored: int | None, expected: int | None) -> None:
    if stored is not None:
        store.save(KEY, snapshot(1), stored, expected=None)
    with pytest.raises(SessionMoved, match="the session moved"):
        store.save(KEY, snapshot(2), 9, expected=expected)
    assert store.version(KEY) == stored
    assert contents(store) == ({} if stored is None else {KEY: 1})


def test_deleting(store: Store) -> None:
    store.delete(KEY)
    for number in range(3):
        store.save(KEY, snapshot(number), number, expected=number - 1 if number else None)
    store.save("other", snapshot(5), 0, expected=None)
    store.delete(KEY)
    store.delete(KEY)
    assert (store.load(KEY), store.version(KEY), contents(store)) == (None, None, {"other": 5})
    store.save(KEY, snapshot(4), 0, expected=None)
    assert contents(store) == {KEY: 4, "other": 5}


def test_deleting_frees_room(store: Store) -> None:
    before, large = store.used_bytes, snapshot(0, 1 << 20)
    store.save(KEY, large, 0, expected=None)
    assert store.used_bytes >= before + len(large)
    store.delete(KEY)
    eventually(lambda: store.used_bytes < before + len(large) // 2)


def test_after_its_ttl_there_is_nothing(store: Store) -> None:
    before, large = store.used_bytes, snapshot(1, 1 << 20)
    store.save(KEY, snapshot(0), 0, expected=None, ttl=1000)
    store.save("for ever", snapshot(0), 0, expected=None)
    assert contents(store) == {KEY: 0, "for ever": 0}
    store.save(KEY, large, 1, expected=0, ttl=0.05)
    eventually(lambda: store.version(KEY) is None)
    assert store.load(KEY) is None and contents(store) == {"for ever": 0}
    eventually(lambda: store.used_bytes < before + len(large) // 2)
    store.save(KEY, snapshot(2), 0, expected=None)
    assert contents(store) == {KEY: 2, "for ever": 0}


def test_every_save_sets_the_ttl_anew(store: Store) -> None:
    store.save(KEY, snapshot(0), 0, expected=None, ttl=0.2)
    store.save("short", snapshot(0), 0, expected=None, ttl=0.3)
    store.save(KEY, snapshot(1), 1, expected=0)
    eventually(lambda: store.version("short") is None)
    assert contents(store) == {KEY: 1}


def test_reopened(store: Store, url: str) -> None:
    store.save(KEY, snapshot(1), 0, expected=None)
    store.save(KEY, snapshot(2), 3, expected=0)
    store.save("short", snapshot(3), 0, expected=None, ttl=0.01)
    store.save("é", snapshot(4), 0, expected=None, ttl=1000)
    store.delete(KEY)
    store.save(KEY, snapshot(5), 1, expected=None)
    store.close()
    with open_store(url, 1 << 30) as again:
        eventually(lambda: again.version("short") is None)
        assert (again.version(KEY), contents(again)) == (1, {KEY: 5, "é": 4})


def test_of_threads_racing_for_a_version_one_wins(store: Store) -> None:
    rounds, barrier = 200, threading.Barrier(NUM_THREADS)
    won: list[list[int]] = [[] for _ in range(rounds)]

    def race(racer: int) -> None:
        for version in range(rounds):
            barrier.wait(30)
            if wins(store, racer, version):
                won[version].append(racer)
            barrier.wait(30)
            stored = store.load(KEY)
            assert stored is not None and stored.version == version and [number_of(stored.data)] == won[version]

    in_threads(race)
    assert [len(winners) for winners in won] == [1] * rounds


def test_threads_do_not_see_each_others_keys(store: Store) -> None:
    def work(worker: int) -> None:
        for version in range(20):
            key = f"{worker}"
            store.save(key, snapshot(100 * worker + version), version, expected=version - 1 if version else None)
            stored = store.load(key)
            assert stored is not None and number_of(stored.data) == 100 * worker + version
            if worker % 2:
                store.save(f"{worker}/{version}", snapshot(0), 0, expected=None)
                store.delete(f"{worker}/{version}")

    in_threads(work)
    assert contents(store) == {f"{worker}": 100 * worker + 19 for worker in range(NUM_THREADS)}


def wins(store: Store, racer: int, version: int) -> bool:
    try:
        store.save(KEY, snapshot(racer), version, expected=version - 1 if version else None)
    except SessionMoved:
        return False
    return True


def in_threads(work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(work, range(NUM_THREADS)))
