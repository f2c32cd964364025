"""Servers are killed at any moment and started again; whoever uses them does not notice."""

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ssp_client import (
    AsyncClient,
    Client,
    GenerateChunk,
    NotFound,
    PositionMismatch,
    SamplingParams,
    StreamOptions,
    session_log,
)
from ssp_client.session import Session
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.sessions import snapshot_file
from ssp_runtime.sessions.stores import open_store
from tests.greedy import Greedy
from tests.redis_server import RedisServer
from tests.server.restarts import RestartedServer
from tests.server.server_process import PATIENCE, eventually

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(temperature=0.8, top_p=0.9, repetition_penalty=1.1, ignore_eos=True)
SMALL_CHUNKS = StreamOptions(max_chunk_tokens=2)
NUM_SESSIONS = 6
RECOVERY_SECONDS = 30.0

Place = str | Path


@pytest.fixture
def folder(tmp_path: Path, writer: Artifact) -> Path:  # noqa: ARG001  # written
    return tmp_path / "sessions"


@pytest.fixture(params=["disk", "redis"])
def place(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[Place]:
    """Where sessions outlive servers."""
    if request.param == "disk":
        yield folder
        return
    with RedisServer(tmp_path) as redis:
        yield redis.url


# Under load


@dataclass(kw_only=True)
class Turn:
    """What is asked of a session the n-th time, and what came."""

    prompt: str
    max_tokens: int
    seed: int
    token_ids: list[int] = field(default_factory=list)
    text: str = ""

    @classmethod
    def number(cls, session: int, number: int) -> "Turn":
        draw = random.Random(1000 * session + number)
        prompt = "".join(draw.choices("abcdefgh ", k=draw.randint(1, 40)))
        return cls(prompt=prompt, max_tokens=draw.randint(1, 60), seed=number)

    def take(self, session: Session, params: SamplingParams, heard: Callable[[GenerateChunk], None]) -> None:
        for chunk in session.generate(
            self.prompt, sampling_params=params, max_tokens=self.max_tokens, seed=self.seed, stream_options=SMALL_CHUNKS
        ):
            heard(chunk)
            self.token_ids += chunk.token_ids
            self.text += chunk.text


class User:
    """Somebody who takes turns with a session until told to stop."""

    def __init__(self, target: str, number: int, stop: threading.Event) -> None:
        self._target, self.number, self._stop = target, number, stop
        self.params = SAMPLED if number % 2 else GREEDY
        self.turns: list[Turn] = []
        self.committed = self.num_tokens = 0
        with Client(target) as client:
            self.id = client.open_session().detach()

    def run(self) -> None:
        with Client(self._target, recovery_seconds=RECOVERY_SECONDS) as client:
            session = client.session(self.id)
            session.info()
            while not self._stop.is_set():
                self.turns.append(Turn.number(self.number, len(self.turns)))
                self.turns[-1].take(session, self.params, self._heard)
                if len(self.turns) % 3 == 0:
                    self.committed = session.commit().committed_position

    def _heard(self, chunk: GenerateChunk) -> None:
        assert chunk.session is not None
        self.committed = max(self.committed, chunk.session.committed_position)
        self.num_tokens += len(chunk.token_ids)


def history(turns: list[Turn]) -> list[int]:
    """The tokens of a session."""
    return [0, *itertools.chain.from_iterable([*turn.prompt.encode(), *turn.token_ids] for turn in turns)]


def check_greedy(turns: list[Turn], greedy: Greedy) -> None:
    """The model says the same by itself."""
    for number, turn in enumerate(turns):
        assert len(turn.token_ids) == turn.max_tokens
        greedy.check(turn.token_ids, [*history(turns[:number]), *turn.prompt.encode()])


def check_sampled(turns: list[Turn], session: Session) -> None:
    """A server that nobody disturbs says the same."""
    for turn in turns:
        again = Turn(prompt=turn.prompt, max_tokens=turn.max_tokens, seed=turn.seed)
        again.take(session, SAMPLED, lambda _chunk: None)
        assert (again.token_ids, again.text) == (turn.token_ids, turn.text)


def saved_position(place: Place, session_id: str) -> int:
    """Where a session stands in a store that no server uses."""
    with open_store(str(place), 1 << 30) as store:
        stored = store.load(session_id)
    assert stored is not None
    header, _ = snapshot_file.unpack(stored.data)
    return int(header["folded"]) + (header["pending"] is not None)


def kill_at_random(server: RestartedServer, users: list[User], place: Place, draw: random.Random) -> None:
    """After some tokens; every second time, after some of each, so that nobody is kept from getting on."""
    before, wanted, of_each = [user.num_tokens for user in users], draw.randint(10, 100), draw.random() < 0.5

    def is_time() -> bool:
        brought = [user.num_tokens - old for user, old in zip(users, before, strict=True)]
        return sum(brought) >= wanted and (all(brought) or not of_each)

    eventually(is_time, within=2 * PATIENCE)
    server.kill()
    for user in users:
        assert user.committed <= saved_position(place, user.id), "a lost commit"
    server.start()


def disturb(models: Path, place: Place, policy: str, num_kills: int) -> list[User]:
    """What users went through together while their server was killed again and again."""
    stop, draw = threading.Event(), random.Random(num_kills)
    with RestartedServer(models, place, "--commit", policy) as server, ThreadPoolExecutor(NUM_SESSIONS) as pool:
        users = [User(server.target, number, stop) for number in range(NUM_SESSIONS)]
        running = [pool.submit(user.run) for user in users]
        try:
            for _ in range(num_kills):
                kill_at_random(server, users, place, draw)
        finally:
            stop.set()
        for each in running:
            each.result(2 * PATIENCE)
        with Client(server.target) as client:
            for user in users:
                assert client.session(user.id).info().position == len(history(user.turns))
    return users


def check_all(users: list[User], greedy: Greedy, undisturbed: Client) -> None:
    for user in users:
        if user.params is SAMPLED:
            with undisturbed.open_session("writer") as session:
                check_sampled(user.turns, session)
        else:
            check_greedy(user.turns, greedy)


@pytest.mark.parametrize(("place", "policy"), [("disk", "idle"), ("redis", "tokens:16")], indirect=["place"])
def test_killed_servers_lose_nothing(models: Path, place: Place, policy: str, greedy: Greedy, client: Client) -> None:
    check_all(disturb(models, place, policy, 3), greedy, client)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("policy", ["idle", "tokens:16", "request"])
def test_servers_killed_fifty_times_lose_nothing(
    models: Path, place: Place, policy: str, greedy: Greedy, client: Client
) -> None:
    check_all(disturb(models, place, policy, 50), greedy, client)


# One at a time


def test_a_stream_goes_on_through_a_kill(models: Path, folder: Path, greedy: Greedy) -> None:
    with RestartedServer(models, folder) as server, Client(server.target) as client:
        session = client.open_session()
        with session.generate("abc", max_tokens=500, sampling_params=GREEDY) as stream:
            chunks = [next(stream)]
            server.restart()
            chunks += stream
        tokens = [token for chunk in chunks for token in chunk.token_ids]
        greedy.check(tokens, [0, *b"abc"])
        assert len(tokens) == 500 and session.position == 504
        text = "".join(chunk.text for chunk in chunks)
        assert text == bytes(tokens).decode(errors="replace")[: len(text)] and len(text) > 300


async def test_the_same_with_asyncio(models: Path, folder: Path, greedy: Greedy) -> None:
    with RestartedServer(models, folder, "--commit", "request") as server:
        async with AsyncClient(server.target) as client:
            session = await client.open_session()
            await session.append("ab")
            tokens: list[int] = []
            async with session.generate("c", max_tokens=500, sampling_params=GREEDY) as stream:
                async for chunk in stream:
                    if not tokens:
                        await asyncio.to_thread(server.restart)
                    tokens += chunk.token_ids
            assert (await session.info()).position == session.position == 504
            greedy.check(tokens, [0, *b"abc"])
            await asyncio.to_thread(server.restart)
            assert (await session.commit()).committed_position == 504


def test_calls_that_were_not_saved_are_done_again(models: Path, folder: Path, greedy: Greedy) -> None:
    with RestartedServer(models, folder, "--commit", "request") as server, Client(server.target) as client:
        session = client.open_session()
        session.append("ab")
        first = session.complete("c", max_tokens=30, ignore_eos=True).token_ids  # sampled, and with no seed given
        server.restart()
        assert client.session(session.id).info().position == 0, "the server has lost it"
        history = [0, *b"abc", *first, *b"d"]
        greedy.check(session.complete("d", max_tokens=9, sampling_params=GREEDY).token_ids, history)
        assert session.commit().committed_position == len(history) + 9
        server.restart()
        assert session.info().position == len(history) + 9
        server.restart()
        with session.fork() as forked:
            assert forked.position == len(history) + 9


def test_a_stream_that_was_cut_is_done_again_as_far_as_it_came(models: Path, folder: Path, greedy: Greedy) -> None:
    with RestartedServer(models, folder, "--commit", "request") as server, Client(server.target) as client:
        session = client.open_session()
        with session.generate("abc", max_tokens=5000, sampling_params=GREEDY) as stream:
            first = [token for _ in range(5) for token in next(stream).token_ids]
            server.kill()
        server.start()
        second = session.complete("d", max_tokens=9, sampling_params=GREEDY).token_ids
        greedy.check(second, [0, *b"abc", *first, *b"d"])
        assert session.position == 4 + len(first) + 1 + 9


def test_checkpoints_forks_and_rewinds_are_saved_at_once(models: Path, folder: Path) -> None:
    with RestartedServer(models, folder, "--commit", "request") as server, Client(server.target) as client:
        session = client.open_session()
        session.append("abc")
        assert session.checkpoint("here").committed_position == 4
        session.append("def")
        forked = session.fork()
        assert session.commit().committed_position == 7
        server.restart()
        assert session.rewind("here").committed_position == 4
        server.restart()
        assert (session.info().position, forked.info().position) == (4, 7)
        assert [kept.name for kept in session.info().checkpoints] == ["here"]


def test_without_a_store_the_session_is_gone(models: Path, writer: Artifact) -> None:  # noqa: ARG001  # written
    with RestartedServer(models) as server, Client(server.target) as client:
        session = client.open_session()
        session.append("abc")
        server.restart()
        with pytest.raises(NotFound, match="no session has this session_id") as refused:
            session.append("d")
        assert refused.value.reason == "SESSION_NOT_FOUND"


def test_what_the_client_no_longer_has_is_said(models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_log, "MAX_CALLS", 1)
    with RestartedServer(models, folder, "--commit", "request") as server, Client(server.target) as client:
        session = client.open_session()
        session.append("abc")
        session.append("def")
        server.restart()
        with pytest.raises(PositionMismatch, match="lost what this session did after position 0"):
            session.append("g")
        assert session.position is None
        session.append("abc")
        assert session.position == 4
