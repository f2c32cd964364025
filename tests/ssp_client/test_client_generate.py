from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest

from ssp_client import (
    AsyncClient,
    Client,
    FinishReason,
    PositionMismatch,
    SamplingParams,
    StreamOptions,
    collect_completions,
)

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import FakeServer


def test_chunks_come_in_order(client: Client, server: FakeServer) -> None:
    chunks = list(client.generate("abc", model="counter", max_tokens=5))
    assert [chunk.token_ids for chunk in chunks] == [(3, 4), (5, 6), (7,)]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, FinishReason.LENGTH]
    assert chunks[-1].usage and chunks[-1].usage.prompt_tokens == 3
    assert server.requests["Generate"][0].model == "counter"


def test_keywords_go_over_sampling_params(client: Client, server: FakeServer) -> None:
    params = SamplingParams(max_tokens=3, temperature=0.5)
    completion = client.complete([1, 2], sampling_params=params, max_tokens=2, seed=7)
    sent = server.requests["Generate"][0].sampling_params
    assert (sent.max_tokens, sent.temperature, sent.seed) == (2, 0.5, 7)
    assert (completion.text, completion.token_ids, str(completion)) == ("2 3 ", (2, 3), "2 3 ")
    assert completion.finish_reason == "length" and completion.usage.completion_tokens == 2


def test_text_and_collected_completions(client: Client) -> None:
    assert client.generate_text("ab", max_tokens=2) == "2 3 "
    assert [c.text for c in collect_completions(client.generate("ab", max_tokens=2))] == ["2 3 "]


def test_stream_options_and_request_id_are_sent(client: Client, server: FakeServer) -> None:
    stream = client.generate(request_id="mine", stream_options=StreamOptions(max_chunk_tokens=1), max_tokens=2)
    assert [chunk.token_ids for chunk in stream] == [(0,), (1,)]
    assert server.requests["Generate"][0].request_id == "mine"
    assert not server.requests["Generate"][0].HasField("input")


def _wait_for_cancel(server: FakeServer) -> None:
    assert server.cancelled.wait(5), "the server never heard that the call was cancelled"


def test_leaving_the_block_cancels(client: Client, server: FakeServer) -> None:
    server.seconds_per_chunk = 0.01
    with client.generate("a", max_tokens=1000) as stream:
        next(stream)
        assert not server.cancelled.is_set()
    _wait_for_cancel(server)
    assert list(stream) == []


def test_garbage_collection_cancels(client: Client, server: FakeServer) -> None:
    server.seconds_per_chunk = 0.01
    stream = client.generate("a", max_tokens=1000)
    next(stream)
    del stream
    gc.collect()
    _wait_for_cancel(server)


def test_close_from_another_thread_ends_the_loop(client: Client, server: FakeServer) -> None:
    server.seconds_per_chunk = 0.05
    stream = client.generate("a", max_tokens=1000)
    next(stream)
    timer = threading.Timer(0.1, stream.close)
    timer.start()
    assert len(list(stream)) < 500
    timer.join()
    _wait_for_cancel(server)


def test_a_client_that_closes_ends_its_streams(server: FakeServer) -> None:
    server.seconds_per_chunk = 0.01
    with Client(server.target) as client:
        stream = client.generate("a", max_tokens=1000)
        next(stream)
    _wait_for_cancel(server)


def test_a_session_by_hand(client: Client, server: FakeServer) -> None:
    server.positions["r.1"] = 5
    chunks = list(client.generate("ab", session_id="r.1", expected_position=5, max_tokens=1))
    assert chunks[0].token_ids == (7,) and chunks[0].session and chunks[0].session.position == 8
    assert server.requests["Generate"][0].request_id
    with pytest.raises(PositionMismatch):
        next(client.generate("ab", session_id="r.1", expected_position=5))


async def test_async_generates(server: FakeServer) -> None:
    async with AsyncClient(server.target) as client:
        stream = client.generate("abc", max_tokens=3)
        assert [chunk.token_ids async for chunk in stream] == [(3, 4), (5,)]
        assert await client.generate_text("ab", max_tokens=2) == "2 3 "


async def test_async_leaving_the_block_cancels(server: FakeServer) -> None:
    server.seconds_per_chunk = 0.01
    async with AsyncClient(server.target) as client:
        async with client.generate("a", max_tokens=1000) as stream:
            await anext(stream)
        await _heard(server)
        assert [chunk async for chunk in stream] == []


async def test_async_garbage_collection_cancels(server: FakeServer) -> None:
    server.seconds_per_chunk = 0.01
    async with AsyncClient(server.target) as client:
        stream = client.generate("a", max_tokens=1000)
        await anext(stream)
        del stream
        gc.collect()
        await _heard(server)


async def test_async_cancelling_the_task_cancels_the_call(server: FakeServer) -> None:
    server.seconds_per_chunk = 0.05
    async with AsyncClient(server.target) as client:

        async def read() -> None:
            async for _ in client.generate("a", max_tokens=1000):
                started.set()

        started = asyncio.Event()
        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _heard(server)


async def _heard(server: FakeServer) -> None:
    assert await asyncio.to_thread(server.cancelled.wait, 5), "the server never heard that the call was cancelled"
