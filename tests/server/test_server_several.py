"""Several servers that share a Redis: a session is where it was used last, and nowhere else."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from ssp_client import (
    Client,
    Completion,
    PositionMismatch,
    SamplingParams,
    SessionMoved,
    SessionStatus,
    SSPError,
    collect_completions,
)
from ssp_runtime.formats.artifact import Artifact
from tests.greedy import Greedy
from tests.redis_server import RedisServer
from tests.server.restarts import RestartedServer

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)
NUM_MOVING = 60

Clients = tuple[Client, Client]


@pytest.fixture(scope="module")
def pair(
    models: Path,
    writer: Artifact,  # noqa: ARG001  # written
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Clients]:
    """Clients of two servers."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path_factory.mktemp("redis")))
        servers = [stack.enter_context(RestartedServer(models, redis.url)) for _ in range(2)]
        first, second = (stack.enter_context(Client(server.target, recovery_seconds=0)) for server in servers)
        yield first, second


def race(clients: Clients, session_id: str, position: int, number: int) -> tuple[list[int], SessionStatus, SSPError]:
    """Both go on with a session at the same time: the tokens that the winner added and where it stands, and what the
    loser was told."""
    start = threading.Barrier(2)

    def run(client: Client, prompt: str) -> Completion | SSPError:
        session = client.session(session_id)
        start.wait()
        try:
            stream = session.generate(prompt, max_tokens=8, sampling_params=GREEDY, expected_position=position)
            (made,) = collect_completions(stream)
        except (SessionMoved, PositionMismatch) as error:
            return error
        return made

    prompts = (f"{number}a", f"{number}b")
    with ThreadPoolExecutor(2) as pool:
        results = list(zip(prompts, pool.map(run, clients, prompts), strict=True))
    ((prompt, won),) = [(prompt, made) for prompt, made in results if isinstance(made, Completion)]
    (lost,) = [made for _, made in results if isinstance(made, SSPError)]
    assert won.session is not None
    return [*prompt.encode(), *won.token_ids], won.session, lost


def check_races(clients: Clients, greedy: Greedy, rounds: int) -> None:
    draw, moved = random.Random(rounds), 0
    for number in range(rounds):
        if number % 50 == 0:
            session_id, version = clients[0].open_session().detach(), 0
            history = [0, *draw.choice(clients).session(session_id).complete("a", max_tokens=1).token_ids]
            history.insert(1, ord("a"))
        added, status, lost = race(clients, session_id, len(history), number)
        greedy.check(added[-8:], [*history, *added[:-8]])
        history += added
        assert lost.code is grpc.StatusCode.ABORTED and lost.reason in ("SESSION_MOVED", "POSITION_MISMATCH")
        moved += isinstance(lost, SessionMoved)
        assert status.position == len(history) and status.version > version, "each version has one winner"
        version = status.version
        assert draw.choice(clients).session(session_id).info().status == status, "either server knows"
    assert moved >= rounds / 5, "they hardly ever raced"


def test_of_two_servers_one_wins_each_version(pair: Clients, greedy: Greedy) -> None:
    check_races(pair, greedy, 25)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_of_two_servers_one_wins_each_of_a_thousand_versions(pair: Clients, greedy: Greedy) -> None:
    check_races(pair, greedy, 1000)


def test_sessions_that_move_away_and_back_are_never_answered_from_an_old_state(pair: Clients, greedy: Greedy) -> None:
    def travel(number: int) -> None:
        with pair[0].open_session() as session:
            history = [0]
            for leg in range(4):
                text = f"{number} {leg}"
                made = pair[leg % 2].session(session.id).complete(text, max_tokens=5, sampling_params=GREEDY)
                history += text.encode()
                greedy.check(made.token_ids, history)
                history += made.token_ids
            assert session.info().position == len(history)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(travel, range(NUM_MOVING)))


def test_a_session_that_moved_is_gone_on_with_where_it_is(pair: Clients) -> None:
    here, there = pair
    with here.open_session() as session:
        session.append("abc")
        there.session(session.id).append("def")
        with pytest.raises(PositionMismatch, match="stands at position 7, not at 4"):
            session.append("g")
        assert session.info().position == 7
        session.append("g")
        assert there.session(session.id).info().position == 8
