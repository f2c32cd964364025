"""Sessions in a real Redis, and what becomes of them when it is away, full, or answers too late."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssp_runtime.errors import InvalidRequest, SessionMoved, SnapshotCorrupt, StoreFull, StoreUnavailable
from ssp_runtime.sessions.stores import Store, open_store
from ssp_runtime.sessions.stores import redis as redis_store
from ssp_runtime.sessions.stores.redis import RedisStore
from tests.redis_server import RedisServer
from tests.ssp_runtime.sessions.cut_line import CutLine
from tests.ssp_runtime.sessions.snapshots import contents, snapshot


@pytest.fixture
def url(redis_server: RedisServer, tmp_path: Path) -> str:
    return f"{redis_server.url}?prefix={tmp_path.name}:"


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    with RedisStore(url) as opened:
        yield opened


@pytest.fixture
def line(redis_server: RedisServer) -> Iterator[CutLine]:
    with CutLine(redis_server.port) as made:
        yield made


@pytest.fixture
def far_store(line: CutLine, url: str, redis_server: RedisServer) -> Iterator[RedisStore]:
    """The same sessions, over the line."""
    with RedisStore(url.replace(f":{redis_server.port}/", f":{line.port}/")) as opened:
        yield opened


def test_of_two_servers_racing_for_a_version_one_wins(store: RedisStore, url: str) -> None:
    def save(of: Store, version: int) -> bool:
        try:
            of.save("a", snapshot(version), version, expected=version - 1 if version else None)
        except SessionMoved:
            return False
        return True

    with RedisStore(url) as other, ThreadPoolExecutor(2) as pool:
        for version in range(200):
            assert sorted(pool.map(save, (store, other), (version, version))) == [False, True]
            assert store.version("a") == version


def test_servers_see_each_other(store: RedisStore, url: str) -> None:
    store.save("a", snapshot(1), 0, expected=None)
    with RedisStore(url) as other:
        assert contents(other) == {"a": 1}
        other.save("a", snapshot(2), 1, expected=0)
    with pytest.raises(SessionMoved, match="its store holds version 1, not version 0"):
        store.save("a", snapshot(3), 1, expected=0)
    store.delete("a")
    with pytest.raises(SessionMoved, match="its store holds nothing, not version 1"):
        store.save("a", snapshot(3), 2, expected=1)


@pytest.mark.parametrize("prefix", ["a*b:", "[ab]:", "a?b\\:", ""])
def test_prefixes_keep_stores_apart(tmp_path: Path, prefix: str) -> None:
    with RedisServer(tmp_path) as server, server.client() as client:
        query = f"?prefix={prefix.replace('?', '%3F')}"
        with RedisStore(server.url + query) as store, RedisStore(server.url + "?prefix=other:") as other:
            other.save("b", snapshot(1), 0, expected=None)
            other.delete("b")
            store.save("a", snapshot(2), 0, expected=None)
            assert contents(store) == {"a": 2} and contents(other) == {}
            assert client.keys() == [f"{prefix}a".encode()]


def test_a_lost_answer_is_asked_for_again(store: RedisStore, far_store: RedisStore, line: CutLine) -> None:
    for version in range(10):
        line.cuts = 1
        far_store.save("a", snapshot(version), version, expected=version - 1 if version else None)
    assert line.cuts == 0 and store.version("a") == 9


def test_after_a_save_without_an_answer_the_next_goes_on(
    store: RedisStore, far_store: RedisStore, line: CutLine
) -> None:
    far_store.save("a", snapshot(0), 0, expected=None)
    lose(far_store, line)
    assert store.version("a") == 1
    far_store.save("a", snapshot(2), 2, expected=0)
    assert contents(store) == {"a": 2}
    with pytest.raises(SessionMoved):
        far_store.save("a", snapshot(3), 3, expected=0)


def test_after_a_save_without_an_answer_another_server_may_have_it(
    store: RedisStore, far_store: RedisStore, line: CutLine
) -> None:
    far_store.save("a", snapshot(0), 0, expected=None)
    lose(far_store, line)
    store.save("a", snapshot(7), 2, expected=1)
    with pytest.raises(SessionMoved):
        far_store.save("a", snapshot(3), 3, expected=0)
    assert contents(store) == {"a": 7}


def lose(store: Store, line: CutLine) -> None:
    line.cuts = 1_000_000
    with pytest.raises(StoreUnavailable, match="ask again later"):
        store.save("a", snapshot(1), 1, expected=0)
    line.cuts = 0


def test_killed_and_started_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, RedisStore(server.url) as store:
        store.save("a", snapshot(1), 0, expected=None)
        server.kill()
        for ask in (lambda: store.load("a"), lambda: store.version("a"), lambda: store.used_bytes, store.keys):
            with pytest.raises(StoreUnavailable):
                ask()
        with pytest.raises(StoreUnavailable):
            store.delete("a")
        with pytest.raises(StoreUnavailable):
            RedisStore(server.url)
        server.start()
        store.save("a", snapshot(2), 1, expected=0)
        assert contents(store) == {"a": 2}


def test_one_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "_TIMEOUT", 0.1)
    with RedisServer(tmp_path) as server, RedisStore(server.url) as store:
        server.freeze()
        with pytest.raises(StoreUnavailable):
            store.save("a", snapshot(1), 0, expected=None)
        server.thaw()


def test_a_full_redis_refuses_and_loses_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, server.client() as client, RedisStore(server.url) as store:
        store.save("a", snapshot(1), 0, expected=None)
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreFull, match="close sessions"):
            store.save("a", snapshot(2), 1, expected=0)
        assert contents(store) == {"a": 1}
        client.config_set("maxmemory", 0)
        store.save("a", snapshot(2), 1, expected=0)
        assert contents(store) == {"a": 2}


def test_damage_is_noticed(store: RedisStore, redis_server: RedisServer, tmp_path: Path) -> None:
    store.save("a", snapshot(1), 0, expected=None)
    with redis_server.client() as client:
        client.hset(f"{tmp_path.name}:a", "data", snapshot(1)[:-1] + b"x")
    with pytest.raises(SnapshotCorrupt):
        store.load("a")


def test_one_that_forgets_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(tmp_path) as server, server.client() as client:
        RedisStore(server.url).close()
        assert caplog.text == ""
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
        RedisStore(server.url).close()
    assert "appendonly yes" in caplog.text and "maxmemory-policy noeviction" in caplog.text


@pytest.mark.parametrize("url", ["redis://127.0.0.1:port/0", "redis://[::1/0", "rediss://127.0.0.1/0?colour=red"])
def test_malformed_urls(url: str) -> None:
    with pytest.raises(InvalidRequest, match="malformed"):
        open_store(url, 1)


@pytest.mark.parametrize("url", ["", "disk:", "ftp://example.org", "disks:/folder"])
def test_urls_of_no_store(url: str) -> None:
    with pytest.raises(InvalidRequest, match="is no session store; give disk:/folder or redis:"):
        open_store(url, 1)


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, redis_store.__name__)
    with pytest.raises(InvalidRequest, match=r"pip install 'ssp\[redis\]'"):
        open_store("redis://127.0.0.1", 1)
