"""Processor time of a server's front, event loop and gRPC's threads, by that of its engine. Linux only.

python -m benchmarks.front --streams 1 16 64 256

Starts a server and streams from it in this process, first with tokens put together into chunks, then each by itself.
Every cell is the processor time of the server's threads over some seconds in which all streams run, by token.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.serving import Server, serving
from ssp_client import StreamOptions
from ssp_client.aio import AsyncClient


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Path = Path("ssp_runtime/shipped/python-bytes")
    streams: tuple[int, ...] = (1, 16, 64, 256)
    chunk_tokens: tuple[int | None, ...] = (None, 1)
    """Tokens of a chunk at most; None is the server's default."""
    seconds: float = 10.0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Seconds of processor time so far."""

    loop: float
    grpc: float
    engine: float

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(loop=self.loop - other.loop, grpc=self.grpc - other.grpc, engine=self.engine - other.engine)


def usage(server: Server) -> Usage:
    """The main thread runs the event loop; of the others the busiest is the engine."""
    used = {int(task.name): _processor_seconds(task) for task in Path(f"/proc/{server.pid}/task").iterdir()}
    loop = used.pop(server.pid)
    engine = max(used.values())
    return Usage(loop=loop, grpc=sum(used.values()) - engine, engine=engine)


def _processor_seconds(task: Path) -> float:
    return int((task / "schedstat").read_text().split()[0]) / 1e9


class Load:
    """Endless streams, and what came of them so far."""

    def __init__(self, client: AsyncClient, flags: Flags, options: StreamOptions) -> None:
        self._client, self._flags, self._options = client, flags, options
        self.tokens = self.chunks = 0

    async def stream(self, seed: int, begun: asyncio.Event) -> None:
        chunks = self._client.generate(
            "def ",
            max_tokens=100_000,
            ignore_eos=True,
            temperature=self._flags.temperature,
            seed=seed,
            stream_options=self._options,
        )
        async for chunk in chunks:
            self.tokens += len(chunk.token_ids)
            self.chunks += 1
            begun.set()


async def cell(server: Server, flags: Flags, streams: int, options: StreamOptions) -> str:
    async with AsyncClient(server.target) as client:
        load, begun = Load(client, flags, options), [asyncio.Event() for _ in range(streams)]
        tasks = [asyncio.create_task(load.stream(*numbered)) for numbered in enumerate(begun)]
        await asyncio.gather(*(event.wait() for event in begun))
        before, tokens, chunks = usage(server), load.tokens, load.chunks
        await asyncio.sleep(flags.seconds)
        used, tokens, chunks = usage(server) - before, load.tokens - tokens, load.chunks - chunks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    micro = [f"{1e6 * seconds / tokens:>9.1f} us" for seconds in (used.engine, used.loop, used.grpc)]
    return f"{tokens / chunks:>12.1f}{tokens / flags.seconds:>10.0f}{''.join(micro)}{_percent(used):>14}"


def _percent(used: Usage) -> str:
    return f"{(used.loop + used.grpc) / used.engine:.1%}"


async def run(flags: Flags) -> None:
    titles = f"{'streams':>8}{'tokens/chunk':>13}{'tokens/s':>10}"
    print(titles + "".join(f"{title:>12}" for title in ("engine", "event loop", "gRPC")) + f"{'front/engine':>14}")
    with serving(flags.model, "--slots", max(flags.streams)) as server:
        for chunk_tokens in flags.chunk_tokens:
            for streams in flags.streams:
                row = await cell(server, flags, streams, StreamOptions(max_chunk_tokens=chunk_tokens))
                print(f"{streams:>8} {row}", flush=True)


if __name__ == "__main__":
    asyncio.run(run(tyro.cli(Flags)))
