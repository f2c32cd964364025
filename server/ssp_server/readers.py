"""From the engine's thread to the streams of the event loop, tokens that arrive together in one message."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.engine import Engine
from ssp_runtime.engine.progress import Progress


class Readers:
    """Who waits for which call. `deliver` is for the engine's thread, the rest for the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readers: dict[Call, Reader | Finish] = {}

    def deliver(self, calls: list[Call]) -> None:
        self._loop.call_soon_threadsafe(self._tell, calls)

    def _tell(self, calls: list[Call]) -> None:
        for call in calls:
            if call in self._readers:
                self._readers[call].told()

    def add(self, call: Call, engine: Engine) -> "Reader":
        """Reads a call in chunks."""
        reader = self._readers[call] = Reader(self, call, engine)
        return reader

    async def finish(self, call: Call, engine: Engine) -> Progress:
        """Waits for a call's end, reading nothing. Cancelled, it cancels the call."""
        finish = self._readers[call] = Finish(call, engine)
        try:
            finish.told()
            await finish.reached.wait()
            assert call.last is not None
            return call.last
        finally:
            self.remove(call)
            if call.finish_reason is None:
                engine.cancel(call)

    async def finish_all(self, calls: Sequence[Call], engine: Engine) -> None:
        """Waits for the end of all. If one fails or this is cancelled, all are; then raises what went wrong."""
        waiting = [asyncio.ensure_future(self.finish(call, engine)) for call in calls]
        try:
            for progress in await asyncio.gather(*waiting):
                if progress.error is not None:
                    raise progress.error
        finally:
            for task in waiting:
                task.cancel()

    def count(self, engine: Engine) -> int:
        """Calls of an engine that are being read."""
        return sum(reader.engine is engine for reader in self._readers.values())

    def cancel_all(self) -> None:
        """Ends every call at its last token, as its reader is told."""
        for call, reader in self._readers.items():
            reader.engine.cancel(call)

    @property
    def num_reading(self) -> int:
        return len(self._readers)

    def remove(self, call: Call) -> None:
        self._readers.pop(call, None)


class Finish:
    """Waits for a call's end."""

    def __init__(self, call: Call, engine: Engine) -> None:
        self._call, self.engine = call, engine
        self.reached = asyncio.Event()

    def told(self) -> None:
        if self._call.finish_reason is not None:
            self.reached.set()


class Reader:
    """Chunks of one call, until its last. Closing it early cancels the call; what was not sent is kept."""

    def __init__(self, readers: Readers, call: Call, engine: Engine) -> None:
        self._readers, self.engine, self.call = readers, engine, call
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def told(self) -> None:
        self._ready.set()

    async def chunks(self) -> AsyncIterator[list[Progress]]:
        """Non-empty lists of progress, in order. The last one ends in a finish reason."""
        finished = False
        self.told()
        try:
            while not finished:
                taken = await self._next()
                finished = taken[-1].finish_reason is not None
                try:
                    yield taken
                except (GeneratorExit, asyncio.CancelledError):
                    self.call.put_back(taken)
                    finished = False
                    raise
        finally:
            self._readers.remove(self.call)
            if not finished:
                self.engine.cancel(self.call)

    async def _next(self) -> list[Progress]:
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            lagged = self.call.num_unread > self.call.max_ahead // 2  # it may have paused
            taken = self.call.take(self.call.chunking.max_tokens)
            if taken:
                break
        self._see_to_the_rest()
        if lagged:
            self.engine.wake()
        return taken

    def _see_to_the_rest(self) -> None:
        """Of what the engine has told of; it may tell of no more for long."""
        if not self.call.has_unread:
            return
        if self.call.num_unread >= self.call.enough:
            self._ready.set()
        else:
            delay = self.call.chunking.delay(self._readers.num_reading, self._loop.time())
            self._timer = self._loop.call_later(delay, self._ready.set)
