"""A chat template and the process that renders it."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssp_runtime.chat.template import ChatTemplate
from ssp_runtime.completed import completed
from ssp_runtime.errors import ChatTemplateFailed, Draining, Exhausted, InvalidRequest

MAX_WAITING = 256
_START_SECONDS = 60
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, kw_only=True)
class RenderBounds:
    """Of one rendering. The memory is that of the process."""

    seconds: int = 5
    memory_bytes: int = 512 << 20
    max_characters: int = 8 << 20


class Renderer:
    """One rendering at a time. A process that took too long or broke is followed by a new one."""

    def __init__(self, template: ChatTemplate, bounds: RenderBounds | None = None) -> None:
        self._template, self._bounds = template, bounds or RenderBounds()
        self._turn = asyncio.Lock()
        self._num_waiting = 0
        self._process: Process | None = None
        self._closed = False

    async def render(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        """The text of each, with the beginning of the model's answer.

        Raises:
            InvalidRequest: the template says that it does not take such a conversation.
            ChatTemplateFailed: it cannot be rendered within its bounds.
            Exhausted: too many wait already.
            Draining: the model is being unloaded.
        """
        if self._num_waiting >= MAX_WAITING:
            raise Exhausted(f"{self._num_waiting} conversations wait to be rendered already; try again later")
        self._num_waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._num_waiting -= 1
        answer = await completed(self._rendered(conversations))  # or the next would get this one's
        if "refused" in answer:
            raise InvalidRequest(f"the model's chat template refuses these messages: {answer['refused']}")
        if "failed" in answer:
            raise ChatTemplateFailed(f"the model's chat template fails: {answer['failed']}")
        return list(answer["texts"])

    async def close(self) -> None:
        """Ends the process, and refuses who waits for it."""
        self._closed = True
        async with self._turn:
            await self._end()

    async def _rendered(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> dict[str, Any]:
        """Gives the turn on."""
        try:
            if self._closed:
                raise Draining("the model is being unloaded")
            process = self._process or await self._start()
            return await self._answer(process, [self._variables | {"messages": each} for each in conversations])
        finally:
            self._turn.release()

    async def _answer(self, process: Process, variables: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._bounds.seconds):
                return dict(await _asked(process, variables))
        except TimeoutError:
            await self._end()
            return {"failed": f"it takes longer than {self._bounds.seconds} s"}
        except (EOFError, OSError):
            await self._end()
            return {"failed": f"it takes more than {self._bounds.memory_bytes >> 20} MiB of memory, or broke otherwise"}

    @property
    def _variables(self) -> dict[str, Any]:
        return {**self._template.tokens, "tools": None, "documents": None, "add_generation_prompt": True}

    async def _start(self) -> Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(_WORKER), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        setup = {**vars(self._bounds), "source": self._template.source}
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _asked(self._process, setup)
        except (TimeoutError, EOFError, OSError) as error:
            await self._end()
            raise ChatTemplateFailed("the process that renders chat templates does not start here") from error
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def _asked(process: Process, message: object) -> Any:
    """The answer to a message."""
    assert process.stdin is not None and process.stdout is not None
    data = json.dumps(message, ensure_ascii=False).encode()
    process.stdin.write(len(data).to_bytes(4, "big") + data)
    await process.stdin.drain()
    size = int.from_bytes(await process.stdout.readexactly(4), "big")
    return json.loads(await process.stdout.readexactly(size))
