"""Sends generation requests at a given rate or concurrency and times their tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssp_client.aio import AsyncClient
from ssp_client.bench.stats import Request
from ssp_client.errors import SSPError
from ssp_client.types import SamplingParams, SequenceLike, StreamOptions


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of all requests; `duration` is from the first departure to the last end, in seconds."""

    requests: tuple[Request, ...]
    errors: tuple[str, ...]
    duration: float
    # Processor time this client took per second: near 1 the client, not the server, is what was measured.
    client_load: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """How every request asks."""

    client: AsyncClient
    model: str
    sampling_params: SamplingParams
    stream_options: StreamOptions
    # Requests under way at most; None: as many as the rate brings.
    concurrency: int | None = None

    async def run(
        self, prompts: Sequence[SequenceLike], departures: Sequence[float], done: Callable[[], object]
    ) -> Outcome:
        """Sends prompt n at second `departures[n]` or, with a concurrency, as soon after it as there is room."""
        room = asyncio.Semaphore(self.concurrency or len(prompts) or 1)
        start, start_cpu = time.perf_counter(), time.process_time()
        results = await asyncio.gather(
            *(self._one(prompt, start + at, room, done) for prompt, at in zip(prompts, departures, strict=True))
        )
        duration = time.perf_counter() - start
        return Outcome(
            requests=tuple(result for result in results if isinstance(result, Request)),
            errors=tuple(result for result in results if isinstance(result, str)),
            duration=duration,
            client_load=(time.process_time() - start_cpu) / duration,
        )

    async def _one(
        self, prompt: SequenceLike, departure: float, room: asyncio.Semaphore, done: Callable[[], object]
    ) -> Request | str:
        await asyncio.sleep(departure - time.perf_counter())
        async with room:
            try:
                return await self._timed(prompt)
            except SSPError as error:
                return f"{type(error).__name__}: {error}"
            finally:
                done()

    async def _timed(self, prompt: SequenceLike) -> Request | str:
        arrivals, tokens, prompt_tokens = [], [], 0
        start = time.perf_counter()
        async for chunk in self.client.generate(
            prompt, model=self.model, sampling_params=self.sampling_params, stream_options=self.stream_options
        ):
            if chunk.token_ids:
                arrivals.append(time.perf_counter())
                tokens.append(len(chunk.token_ids))
            prompt_tokens = chunk.usage.prompt_tokens if chunk.usage else prompt_tokens
        if not tokens:
            return "the stream ended without a token"
        return Request(start=start, arrivals=tuple(arrivals), tokens=tuple(tokens), prompt_tokens=prompt_tokens)
