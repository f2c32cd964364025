"""Generation over the wire equals the model in this process."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssp_client import Client, FinishReason, StreamOptions, collect_completions
from ssp_client.types import GenerateChunk
from tests.greedy import Greedy
from tests.server.server_process import ServerProcess, eventually


def ids(chunks: Sequence[GenerateChunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


@pytest.mark.parametrize("prompt", ["Once upon a time", "€", [0, 200, 7], None, list(range(256)) * 3], ids=repr)
def test_a_stream_is_the_models_greedy_continuation(
    client: Client, greedy: Greedy, prompt: str | list[int] | None
) -> None:
    made = client.complete(prompt, max_tokens=24, temperature=0, ignore_eos=True)
    tokens = list(prompt.encode()) if isinstance(prompt, str) else prompt or []
    context = tokens if tokens[:1] == [0] else [0, *tokens]
    greedy.check(made.token_ids, context)
    assert made.text == bytes(made.token_ids).decode(errors="replace")
    assert made.finish_reason is FinishReason.LENGTH
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (len(context), 24)


def test_many_streams_at_once_do_not_mix(client: Client, greedy: Greedy) -> None:
    prompts = [f"stream {i} " * (1 + i % 5) for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda p: client.complete(p, max_tokens=40, temperature=0, ignore_eos=True), prompts))
    for prompt, completion in zip(prompts, made, strict=True):
        greedy.check(completion.token_ids, [0, *prompt.encode()])


def test_the_first_token_comes_at_once_and_chunks_keep_their_bound(client: Client) -> None:
    options = StreamOptions(max_chunk_tokens=30, max_chunk_delay_ms=60_000)
    chunks = list(client.generate("a", max_tokens=100, ignore_eos=True, stream_options=options))
    first, *full, last = [len(chunk.token_ids) for chunk in chunks]
    assert first < 30 and full == [30] * len(full) and last <= 30 and first + sum(full) + last == 100


def test_chunks_of_more_tokens_than_the_engine_runs_ahead_do_not_stall(client: Client) -> None:
    options = StreamOptions(max_chunk_tokens=1000, max_chunk_delay_ms=60_000)
    chunks = list(client.generate("a", max_tokens=100, ignore_eos=True, stream_options=options))
    assert len(ids(chunks)) == 100 and len(chunks) < 10


def test_every_token_by_itself(client: Client) -> None:
    options = StreamOptions(max_chunk_tokens=1)
    chunks = list(client.generate("a", max_tokens=10, ignore_eos=True, stream_options=options))
    assert [len(chunk.token_ids) for chunk in chunks] == [1] * 10


def test_several_completions_of_one_prompt(client: Client) -> None:
    chunks = list(client.generate("abc", n=4, max_tokens=12, seed=7, ignore_eos=True))
    made = collect_completions(chunks)
    assert [completion.index for completion in made] == [0, 1, 2, 3]
    assert all(len(completion.token_ids) == 12 and completion.usage.completion_tokens == 12 for completion in made)
    assert len({completion.token_ids for completion in made}) == 4
    assert made[0].token_ids == client.complete("abc", max_tokens=12, seed=7, ignore_eos=True).token_ids


def test_a_seed_fixes_the_draws(client: Client) -> None:
    first, second, other = (client.complete("abc", max_tokens=12, seed=seed).token_ids for seed in (7, 7, 8))
    assert first == second != other
    assert len({client.complete("abc", max_tokens=12).token_ids for _ in range(4)}) == 4, "seeds must be drawn"


def test_stop_texts_end_the_stream_and_are_not_returned(client: Client) -> None:
    text = client.generate_text("abc", max_tokens=40, temperature=0, logit_bias={ord("x"): 100.0}, stop=["xxxx"])
    assert text == ""
    biased = {ord("a"): 50.0, ord("b"): 50.0}
    made = client.complete("abc", max_tokens=1000, seed=1, logit_bias=biased, stop=["bab", "aaaa"])
    assert made.finish_reason is FinishReason.STOP and "bab" not in made.text and "aaaa" not in made.text


def test_a_cancelled_stream_stops_computing(client: Client, server: ServerProcess) -> None:
    with client.generate("a", max_tokens=20_000, ignore_eos=True) as stream:
        next(stream)
        assert server.metrics()["ssp_num_requests_running"] + server.metrics()["ssp_state_slots_used"] > 0
    eventually(lambda: server.metrics()["ssp_num_requests_running"] == 0, within=2)
    before = server.metrics()["ssp_generation_tokens_total"]
    assert server.metrics()["ssp_generation_tokens_total"] == before


def test_a_deadline_stops_computing(client: Client, server: ServerProcess) -> None:
    with pytest.raises(TimeoutError):
        list(client.generate("a", max_tokens=20_000, ignore_eos=True, timeout=0.3))
    eventually(lambda: server.metrics()["ssp_num_requests_running"] == 0, within=2)


def test_a_reader_that_pauses_loses_nothing(client: Client, greedy: Greedy) -> None:
    with client.generate("a", max_tokens=120, temperature=0, ignore_eos=True) as stream:
        chunks = [next(stream)]
        until = time.monotonic() + 0.3
        eventually(lambda: time.monotonic() > until)
        chunks += stream
    greedy.check(ids(chunks), [0, *b"a"])
