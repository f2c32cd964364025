"""Generation without sessions: the client keeps the state, and any server with the same key goes on from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ssp_client import (
    AsyncClient,
    Client,
    Completion,
    InvalidArgument,
    SamplingParams,
    StateNotSealed,
    StreamOptions,
)
from ssp_client.cli import main
from ssp_server.config import ConfigError, ServerConfig
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess

TEXT = "the quick brown fox"
CONTEXT = [0, *TEXT.encode()]
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=8)
SAMPLED = SamplingParams(temperature=1.0, seed=7, repetition_penalty=1.3, ignore_eos=True, max_tokens=8)
TURNS = (TEXT, " jumps", None, " over the lazy dog", "é", None)


@pytest.fixture
def two(twins: tuple[ServerProcess, ServerProcess]) -> Iterator[tuple[Client, Client]]:
    first, second = (Client(each.target, token="token-one", timeout=PATIENCE) for each in twins)
    with first, second:
        yield first, second


def turn(client: Client, prompt: str | None, state: bytes, params: SamplingParams, model: str = "") -> Completion:
    return client.complete(prompt, model=model, state=state, return_state=True, sampling_params=params)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_two_servers_take_turns_as_one_session_would(two: tuple[Client, Client], params: SamplingParams) -> None:
    state = b""
    with two[0].open_session("scribe") as session:
        for number, prompt in enumerate(TURNS):
            expected = session.complete(prompt, sampling_params=params)
            came = turn(two[number % 2], prompt, state, params, "" if state else "scribe")
            assert (came.token_ids, came.text) == (expected.token_ids, expected.text)
            assert came.state
            if state:  # a first prompt may be found among those kept
                assert came.usage == expected.usage
            state = came.state
    assert not list(two[1].list_sessions())


def test_a_state_is_a_value(client: Client, greedy: Greedy) -> None:
    first = turn(client, TEXT, b"", GREEDY)
    assert first.state
    ways = [turn(client, text, first.state, GREEDY) for text in ("a", "b", "a")]
    greedy.check(ways[1].token_ids, [*CONTEXT, *first.token_ids, *b"b"])
    assert ways[0].token_ids == ways[2].token_ids
    ended = client.complete("a", state=first.state, sampling_params=GREEDY)
    assert ended.token_ids == ways[0].token_ids and ended.state is None


def test_nothing_stays_on_the_server(client: Client, server: ServerProcess) -> None:
    before = server.metrics()["ssp_state_slots_used"]
    for _ in range(3):
        state = turn(client, TEXT, b"", GREEDY).state
        assert state
        with client.generate(state=state, return_state=True, max_tokens=20_000, ignore_eos=True) as stream:
            next(stream)
    client.complete(TEXT, sampling_params=GREEDY)
    assert server.metrics()["ssp_state_slots_used"] <= before


def test_only_the_last_chunk_has_the_state(client: Client) -> None:
    options = StreamOptions(max_chunk_tokens=1)
    chunks = list(client.generate(TEXT, return_state=True, sampling_params=GREEDY, stream_options=options))
    assert len(chunks) > 1 and [bool(chunk.state) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_a_changed_state_is_refused(two: tuple[Client, Client]) -> None:
    state = turn(two[0], TEXT, b"", GREEDY, "scribe").state
    assert state
    places = [*range(0, len(state), len(state) // 40), len(state) - 1]
    for place in places:
        changed = bytearray(state)
        changed[place] ^= 1
        with pytest.raises(StateNotSealed, match="--seal-key-file"):
            turn(two[1], "a", bytes(changed), GREEDY)
    for wrong in (state[:-1], state + b"\0", b"x", state[:32]):
        with pytest.raises(StateNotSealed):
            turn(two[1], "a", wrong, GREEDY)


def test_another_tenants_state_is_refused(
    two: tuple[Client, Client], twins: tuple[ServerProcess, ServerProcess]
) -> None:
    state = turn(two[0], TEXT, b"", GREEDY, "scribe").state
    assert state
    with Client(twins[0].target, token="token-two", timeout=PATIENCE) as stranger:
        with pytest.raises(StateNotSealed):
            turn(stranger, "a", state, GREEDY)
        assert turn(stranger, TEXT, b"", GREEDY, "scribe").state


def test_another_keys_state_is_refused(two: tuple[Client, Client], client: Client) -> None:
    state = turn(two[0], TEXT, b"", GREEDY, "scribe").state
    assert state
    with pytest.raises(StateNotSealed):
        turn(client, "a", state, GREEDY)


def test_what_does_not_go_together(client: Client) -> None:
    state = turn(client, TEXT, b"", GREEDY).state
    assert state
    with pytest.raises(InvalidArgument, match="n must be 1 with a state"):
        client.complete("a", state=state, n=2)
    with pytest.raises(InvalidArgument, match="n must be 1 with a state"):
        client.complete("a", return_state=True, n=2)
    with client.open_session() as session:
        for given in ({"state": state}, {"return_state": True}):
            with pytest.raises(InvalidArgument, match="a session keeps its state on the server"):
                list(client.generate("a", session_id=session.id, **given))
    with pytest.raises(InvalidArgument, match="expected_position needs a session_id"):
        list(client.generate("a", state=state, expected_position=3))
    with pytest.raises(InvalidArgument, match="classifies"):
        client.complete("a", model="reader", return_state=True)


def test_states_too_large_for_a_message_are_refused(two: tuple[Client, Client]) -> None:
    with pytest.raises(InvalidArgument, match=r"a state of model 'griffin' takes up to \d+ bytes.*use a session"):
        two[0].complete(TEXT, model="griffin", return_state=True)
    assert two[0].complete(TEXT, model="griffin", sampling_params=GREEDY).token_ids


async def test_the_same_with_asyncio(server: ServerProcess, greedy: Greedy) -> None:
    async with AsyncClient(server.target, timeout=PATIENCE) as client:
        first = await client.complete(TEXT, return_state=True, sampling_params=GREEDY)
        assert first.state
        second = await client.complete(state=first.state, sampling_params=GREEDY)
        greedy.check([*first.token_ids, *second.token_ids], CONTEXT)


def test_on_the_command_line(
    server: ServerProcess, greedy: Greedy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chat.state"
    options = ("--target", server.target, "--max-tokens", "8", "--temperature", "0", "--ignore-eos")
    expected = bytes(greedy.tokens(CONTEXT, 8)).decode(errors="replace")
    assert main(["generate", TEXT, "--save-state", str(file), *options]) == 0
    assert capsys.readouterr().out == expected + "\n"
    before = file.read_bytes()
    assert main(["generate", "a", "--state", str(file), "--save-state", str(file), "--json", *options]) == 0
    assert file.read_bytes() != before and '"state"' not in capsys.readouterr().out
    assert main(["generate", "a", "--state", str(tmp_path / "none"), *options]) == 1
    assert main(["generate", "a", "--state", str(file), "--open-session", *options]) == 1
    assert "a session keeps its state on the server" in capsys.readouterr().err


def test_the_key_is_the_files_or_a_random_one(tmp_path: Path) -> None:
    assert ServerConfig().seal_key() != ServerConfig().seal_key()
    (tmp_path / "key").write_bytes(b"k" * 32)
    assert ServerConfig(seal_key_file=tmp_path / "key").seal_key() == b"k" * 32
    (tmp_path / "short").write_bytes(b"k" * 31)
    with pytest.raises(ConfigError, match="has 31 bytes; a key has at least 32"):
        ServerConfig(seal_key_file=tmp_path / "short").seal_key()
    with pytest.raises(ConfigError, match="--seal-key-file cannot be read"):
        ServerConfig(seal_key_file=tmp_path / "none").seal_key()
