"""Chunks: when one is sent, and what becomes of one that cannot be."""

import asyncio
import time
from typing import cast

import pytest

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.chunks import Chunking
from ssp_runtime.engine.engine import Engine
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.tokenizers import ByteTokenizer
from ssp_server.readers import Readers


class StillEngine:
    """It only notes what it is told."""

    def __init__(self) -> None:
        self.wakes = 0
        self.cancelled: list[Call] = []

    def wake(self) -> None:
        self.wakes += 1

    def cancel(self, call: Call) -> None:
        self.cancelled.append(call)


class Room:
    """A call, its reader, and what the engine would do."""

    def __init__(self, **options: float) -> None:
        self.engine = StillEngine()
        chunking = Chunking(max_tokens=int(options.get("max_tokens", 8)), max_delay=options.get("max_delay", 60.0))
        sequence = Sequence(ByteTokenizer().detokenizer(), kept=True)
        self.call = Call(sequence, [1], SamplingParams(), CallOptions(chunking=chunking))
        self.call.accept(32, ())
        self.readers = Readers(asyncio.get_running_loop())
        self.chunks = self.readers.add(self.call, cast(Engine, self.engine)).chunks()

    def put(self, *tokens: int, finish_reason: FinishReason | None = None) -> None:
        """The engine brings tokens, and says so when it should."""
        for token in tokens:
            self.call.put(Progress(position=0, token_ids=(token,), finish_reason=finish_reason))
        if finish_reason or not self.call.num_takes or self.call.num_unread >= self.call.enough:
            self.readers.deliver([self.call])

    async def chunk(self) -> list[int]:
        taken = await asyncio.wait_for(anext(self.chunks), 10)
        return [token for progress in taken for token in progress.token_ids]


async def test_the_first_token_goes_at_once_then_chunks_fill() -> None:
    room = Room(max_tokens=3)
    room.put(0)
    assert await room.chunk() == [0]
    waiting = asyncio.ensure_future(room.chunk())
    for token in (1, 2, 3, 4):
        await asyncio.sleep(0)
        assert not waiting.done()
        room.put(token)
    assert await waiting == [1, 2, 3]
    room.put(5, 6)
    assert await room.chunk() == [4, 5, 6]


async def test_what_is_left_of_a_full_chunk_goes_when_it_is_old() -> None:
    """The engine has told of it, and may tell of no more."""
    room = Room(max_tokens=3, max_delay=0.05)
    room.put(*range(7))
    started = time.monotonic()
    assert await room.chunk() == [0, 1, 2] and await room.chunk() == [3, 4, 5]
    assert await room.chunk() == [6] and time.monotonic() - started >= 0.04


async def test_a_chunk_goes_when_the_engine_has_run_as_far_ahead_as_it_may() -> None:
    room = Room(max_tokens=1000)
    room.put(0)
    await room.chunk()
    room.put(*range(1, 33))
    assert await room.chunk() == [*range(1, 33)]


async def test_the_last_chunk_goes_at_once_and_ends_the_stream() -> None:
    room = Room()
    room.put(0)
    await room.chunk()
    room.put(1, 2)
    room.put(3, finish_reason=FinishReason.LENGTH)
    assert await room.chunk() == [1, 2, 3]
    with pytest.raises(StopAsyncIteration):
        await room.chunk()
    assert not room.engine.cancelled


async def test_the_engine_hears_of_a_chunk_taken_if_the_call_may_have_paused() -> None:
    room = Room(max_tokens=8)
    room.put(*range(24))
    wakes = []
    for _ in range(3):
        await room.chunk()
        wakes.append(room.engine.wakes)
    assert wakes == [1, 1, 1]  # 24 of 32 were waiting, then half of them or fewer


async def test_a_chunk_that_could_not_be_sent_stays_undelivered_and_the_call_ends() -> None:
    room = Room(max_tokens=2)
    room.put(0)
    await room.chunk()
    room.put(1, 2, 3)
    assert await room.chunk() == [1, 2]
    await room.chunks.aclose()  # type: ignore[attr-defined]  # as when the client goes while [1, 2] is being written
    assert room.engine.cancelled == [room.call]
    assert room.call.untaken().token_ids == (1, 2, 3)


async def test_a_client_that_goes_while_nothing_comes_ends_the_call() -> None:
    room = Room()
    waiting = asyncio.ensure_future(room.chunk())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert room.engine.cancelled == [room.call]


async def test_waiting_for_an_end_reads_nothing() -> None:
    room = Room()
    waiting = asyncio.ensure_future(room.readers.finish(room.call, cast(Engine, room.engine)))
    room.put(0, 1)
    room.put(2, finish_reason=FinishReason.LENGTH)
    assert (await asyncio.wait_for(waiting, 10)).token_ids == (2,)
    assert room.call.num_unread == 3 and not room.engine.cancelled
