"""`--deterministic` over the wire: what a session says, and every number that a client can see of it, is the same alone
and in any crowd."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from ssp_client import Client, SamplingParams, StateHealth
from ssp_runtime.formats.artifact import Artifact
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess

TEXT = "the quick brown fox jumps over the lazy dog"
DRAWN = SamplingParams(temperature=1.0, seed=7, ignore_eos=True)
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def server(models: Path, writer: Artifact) -> Iterator[ServerProcess]:  # noqa: ARG001  # written
    """With fewer slots than sessions, and no prefixes to reuse."""
    options = ("--deterministic", "--slots", "3", "--max-prefix-bytes", "0")
    with ServerProcess("--models", models / "writer", *options) as made:
        with Client(made.target) as client:
            client.wait_until_ready(PATIENCE, service="ssp.v1.Generation")
        yield made


class Seen(NamedTuple):
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    health: StateHealth | None


def seen(client: Client, piece: int) -> Seen:
    """Of a session whose text comes in pieces of that size."""
    with client.open_session() as session:
        for at in range(0, len(TEXT), piece):
            session.append(TEXT[at : at + piece])
        tokens = session.complete(max_tokens=40, sampling_params=DRAWN).token_ids
        with session.fork() as forked:
            tokens += forked.complete(max_tokens=20, sampling_params=GREEDY).token_ids
            return Seen(tokens, forked.peek(["abc"])[0].logprobs, forked.info(with_health=True).health)


def test_sessions_are_the_same_to_the_last_bit(client: Client, greedy: Greedy) -> None:
    alone = seen(client, len(TEXT))
    assert len(set(alone.tokens)) > 20 and alone.health is not None and alone.health.norm > 0
    pieces = (1, 7, 20, len(TEXT)) * 3
    with ThreadPoolExecutor(len(pieces)) as pool:
        assert list(pool.map(lambda piece: seen(client, piece), pieces)) == [alone] * len(pieces)
    greedy.check(client.complete(TEXT, max_tokens=30, sampling_params=GREEDY).token_ids, [0, *TEXT.encode()])
