from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["disk", "redis"])
def keeper_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind, empty."""
    if request.param == "disk":
        return f"disk:{tmp_path / 'sessions'}"
    return f"{request.getfixturevalue('redis_server').url}?prefix={tmp_path.name}:"


@pytest.fixture
def redis_url(redis_server: RedisServer, tmp_path: Path) -> str:
    return f"{redis_server.url}?prefix={tmp_path.name}:"
