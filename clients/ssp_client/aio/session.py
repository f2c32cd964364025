"""A session, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack, overload

from ssp_client import calls
from ssp_client.aio.recovery import AsyncRecovery
from ssp_client.aio.step_stream import AsyncStepStream
from ssp_client.aio.stream import AsyncGenerateStream
from ssp_client.aio.transfer import download
from ssp_client.aio.transport import AsyncTransport
from ssp_client.completion import Completion, Gathering
from ssp_client.cursor import Cursor
from ssp_client.errors import NotFound, SSPError
from ssp_client.files import FileLike, written
from ssp_client.steps import Outputs, Steps, answers
from ssp_client.types import (
    ChatMessage,
    SamplingOptions,
    SamplingParams,
    Score,
    SequenceLike,
    SessionInfo,
    SessionStatus,
    StateDtype,
    StreamOptions,
    TopLogprobs,
    Usage,
)


class AsyncSession:
    """A session of the server; what `Session` says holds here, with tasks for threads."""

    def __init__(self, transport: AsyncTransport, cursor: Cursor, *, model: str = "", owned: bool = False) -> None:
        self._transport, self._cursor, self._owned = transport, cursor, owned
        self._recovery = AsyncRecovery(transport, cursor)
        self.model = model

    @property
    def id(self) -> str:
        """`<routing_key>.<secret>`; whoever holds it can use the session."""
        return self._cursor.session_id

    @property
    def position(self) -> int | None:
        """As `Session.position`."""
        return self._cursor.position

    @property
    def version(self) -> int | None:
        """As `Session.version`."""
        return self._cursor.version

    async def append(
        self,
        sequence: SequenceLike,
        *,
        expected_position: int | None = None,
        request_id: str = "",
        priority: int = 0,
        timeout: float | None = None,
    ) -> Usage:
        """Folds a sequence into the state without generating."""
        await self._recovery.settle()
        call = self._cursor.append(sequence, expected_position, request_id, priority)
        try:
            status, usage = await self._recovery.unary(call, timeout)
        except asyncio.CancelledError:
            self._cursor.lose()
            raise
        except SSPError as error:
            self._cursor.failed(error)
            raise
        self._cursor.appended(call, status)
        return usage

    def generate(
        self,
        prompt: SequenceLike | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        sampling_params: SamplingParams | None = None,
        expected_position: int | None = None,
        request_id: str = "",
        stream_options: StreamOptions | None = None,
        priority: int = 0,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerateStream:
        """Continues the session, after `prompt` if there is one; see `Client.generate`."""
        make = functools.partial(
            self._cursor.generate,
            prompt,
            messages=messages,
            sampling_params=calls.sampling(sampling_params, sampling),
            expected_position=expected_position,
            request_id=request_id,
            stream_options=stream_options,
            priority=priority,
        )
        return AsyncGenerateStream(self._transport, make, timeout=timeout, recovery=self._recovery)

    async def complete(
        self,
        prompt: SequenceLike | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion:
        """Generates to the end and returns the whole."""
        gathering = Gathering()
        async with self.generate(
            prompt, messages=messages, sampling_params=sampling_params, timeout=timeout, **sampling
        ) as stream:
            async for chunk in stream:
                gathering.add(chunk)
        return gathering.only()

    async def generate_text(
        self,
        prompt: SequenceLike | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Generates to the end and returns the text."""
        return (
            await self.complete(prompt, messages=messages, sampling_params=sampling_params, timeout=timeout, **sampling)
        ).text

    @overload
    def step(
        self, *, expected_position: int | None = None, timeout: float | None = None
    ) -> AsyncStepStream[Outputs]: ...
    @overload
    def step(
        self, *, top_logprobs: int, expected_position: int | None = None, timeout: float | None = None
    ) -> AsyncStepStream[tuple[TopLogprobs, ...]]: ...
    def step(
        self, *, top_logprobs: int = 0, expected_position: int | None = None, timeout: float | None = None
    ) -> AsyncStepStream[Any]:
        """As `Session.step`, with `async with` and `await stream.send(values)`."""
        steps: Steps[Any] = Steps(
            self._cursor, answers(top_logprobs), top_logprobs=top_logprobs, expected_position=expected_position
        )
        return AsyncStepStream(self._transport, steps, timeout=timeout)

    async def fork(
        self,
        *,
        routing_key: str = "",
        expected_position: int | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> AsyncSession:
        """Another session that stands where this one does and goes its own way; as fast at every position.

        It is closed at the end of a with-block of its own. Checkpoints stay with this one.
        """
        await self._recovery.settle()
        call = self._cursor.fork(routing_key, expected_position, request_id)
        info = await self._recovery.unary(call, timeout)
        return AsyncSession(self._transport, self._cursor.forked(info), model=info.model, owned=True)

    async def checkpoint(
        self, name: str, *, expected_position: int | None = None, timeout: float | None = None
    ) -> SessionStatus:
        """Keeps the state of now under a name, in place of an older one of that name."""
        await self._recovery.settle()
        status = await self._recovery.unary(self._cursor.checkpoint(name, expected_position), timeout)
        self._cursor.note(status)
        return status

    async def rewind(
        self, name: str, *, expected_position: int | None = None, timeout: float | None = None
    ) -> SessionStatus:
        """Puts the session back to a checkpoint, which stays; raises `NotFound` if there is none of that name."""
        call, again = self._cursor.rewind(name, expected_position), calls.rewind(name, session_id=self.id)
        try:
            status = await self._recovery.unary(call, timeout, again=again)
        except SSPError as error:
            self._cursor.failed(error)
            raise
        self._cursor.rewound(status)
        return status

    async def peek(
        self,
        continuations: Sequence[SequenceLike],
        *,
        expected_position: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Score, ...]:
        """How likely each continuation is; the session stays as it is."""
        await self._recovery.settle()
        return await self._recovery.unary(self._cursor.peek(continuations, expected_position), timeout)

    async def export(
        self,
        file: FileLike,
        *,
        checkpoint: str = "",
        dtype: StateDtype | None = None,
        expected_position: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Writes the session's state to a file; as `Session.export`."""
        call = self._cursor.export(checkpoint, dtype, expected_position)
        with written(file) as out:
            return await download(self._transport, call, out, timeout)

    async def drop_checkpoint(self, name: str, *, timeout: float | None = None) -> None:
        """Frees a checkpoint."""
        call = calls.drop_checkpoint(name, session_id=self.id)
        await self._recovery.unary(call, timeout, again=call)

    async def commit(self, *, timeout: float | None = None) -> SessionStatus:
        """Has the server save the session now, so that a restart does not lose it; for servers that do not by
        themselves. Does nothing without a store."""
        await self.info(timeout=timeout)
        status = await self._recovery.unary(calls.commit(self.id), timeout)
        self._cursor.settled(status)
        return status

    async def info(self, *, with_health: bool = False, timeout: float | None = None) -> SessionInfo:
        """Asks the server where the session stands, and how large its state's numbers are if that is wanted; `position`
        and `version` follow."""
        await self._recovery.settle()
        info = await self._recovery.info(timeout, with_health=with_health)
        self._cursor.note(info.status)
        self.model = info.model
        return info

    async def close(self, *, timeout: float | None = None) -> SessionStatus:
        """Ends the session and frees its state; the answer is where it stood."""
        self._owned = False
        call = calls.close_session(self.id)
        status = await self._recovery.unary(call, timeout, again=call)
        self._cursor.note(status)
        return status

    def detach(self) -> str:
        """Lets the session outlive its block; returns the id to take it up again."""
        self._owned = False
        return self.id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._owned:
            return
        # What ended the block says more than a close that failed after it.
        with contextlib.suppress(SSPError if error else NotFound):
            await self.close()
