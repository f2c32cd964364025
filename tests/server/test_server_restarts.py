"""What a server finds when it starts again, and what it says when it cannot have it."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssp_client import Client, NotFound, SamplingParams, SessionExpired, StoreUnavailable, Tier
from ssp_runtime.formats.artifact import Artifact
from tests.greedy import Greedy
from tests.redis_server import RedisServer
from tests.server.restarts import ForkedProcess, RestartedServer
from tests.server.server_process import PATIENCE, eventually

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.fixture
def folder(tmp_path: Path, writer: Artifact) -> Path:  # noqa: ARG001  # written
    return tmp_path / "sessions"


@pytest.fixture
def server(models: Path, folder: Path) -> Iterator[RestartedServer]:
    with RestartedServer(models, folder) as made:
        yield made


@pytest.fixture
def client(server: RestartedServer) -> Iterator[Client]:
    with Client(server.target, recovery_seconds=0) as made:
        yield made


def ready(client: Client) -> Client:
    client.wait_until_ready(PATIENCE, service="ssp.v1.Sessions")
    return client


@pytest.mark.parametrize("killed", [False, True])
def test_sessions_are_listed_again(server: RestartedServer, client: Client, killed: bool) -> None:
    sessions = [client.open_session(ttl=1000) for _ in range(3)]
    for number, session in enumerate(sessions):
        session.append("a" * (number + 1))
        session.checkpoint("here")
    before = {info.session_id: info for info in client.list_sessions()}
    server.kill() if killed else server.stop()
    server.start()
    ready(client)
    eventually(lambda: len(list(client.list_sessions())) == 3)
    for info in client.list_sessions():
        old = before[info.session_id]
        assert info.tier is Tier.STORE and (info.position, info.status.committed_position) == (old.position,) * 2
        assert (info.model, info.ttl, info.create_time, info.checkpoints) == (
            old.model, old.ttl, old.create_time, old.checkpoints,
        )  # fmt: skip


def test_a_ttl_goes_on_while_the_server_is_down(server: RestartedServer, client: Client) -> None:
    expiring, other = client.open_session(ttl=0.5), client.open_session(ttl=1000)
    server.kill()
    time.sleep(0.6)
    server.start()
    ready(client)
    with pytest.raises(SessionExpired, match="not used for as long as its ttl"):
        client.session(expiring.id).append("a")
    other.append("a")


def test_a_model_that_is_not_served_any_more_is_named(
    server: RestartedServer, client: Client, models: Path, folder: Path
) -> None:
    session = client.open_session()
    session.append("abc")
    server.stop()
    shutil.copytree(models / "writer", models / "other", dirs_exist_ok=True)
    with RestartedServer(models, folder, model="other") as without, Client(without.target) as user:
        with pytest.raises(NotFound, match="'writer'"):
            user.session(session.id).append("d")
        assert user.open_session("other").append("d").prompt_tokens == 2
    server.start()
    ready(client)
    assert session.append("d").prompt_tokens == 1, "it was left alone"


@pytest.mark.usefixtures("server")
def test_a_folder_of_another_server_is_refused(models: Path, folder: Path) -> None:
    arguments = ["--models", str(models / "writer"), "--store", str(folder), "--port", "0", "--metrics-port", "-1"]
    second = ForkedProcess(arguments)
    assert second.wait(PATIENCE) == 1
    with second.stderr as lines:
        (line,) = [line for line in lines if "error:" in line]
    assert str(folder) in line and "another server" in line


def test_a_store_that_is_away_and_comes_back(models: Path, tmp_path: Path, greedy: Greedy) -> None:
    with (
        RedisServer(tmp_path) as redis,
        RestartedServer(models, redis.url) as server,
        Client(server.target, recovery_seconds=0) as client,
    ):
        session = client.open_session()
        session.append("abc")
        redis.kill()
        with pytest.raises(StoreUnavailable, match="does not answer") as refused:
            client.session(session.id).complete(max_tokens=5, sampling_params=GREEDY)
        assert refused.value.retry_after == 5
        redis.start()
        made = client.session(session.id).complete(max_tokens=5, sampling_params=GREEDY)
        greedy.check(made.token_ids, [0, *b"abc"])
        assert made.session is not None and made.session.committed_position == 9
