"""A session, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from ssp_client import calls
from ssp_client.aio.stream import AsyncGenerateStream
from ssp_client.aio.transport import AsyncTransport
from ssp_client.completion import Completion, Gathering
from ssp_client.cursor import AppendAnswer, Cursor
from ssp_client.delivery import pause_before_retry
from ssp_client.errors import NotFound, SSPError, Unavailable
from ssp_client.types import (
    SamplingOptions,
    SamplingParams,
    Score,
    SequenceLike,
    SessionInfo,
    SessionStatus,
    StreamOptions,
    Usage,
)


class AsyncSession:
    """A session of the server; what `Session` says holds here, with tasks for threads."""

    def __init__(self, transport: AsyncTransport, cursor: Cursor, *, model: str = "", owned: bool = False) -> None:
        self._transport, self._cursor, self._owned = transport, cursor, owned
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
        timeout: float | None = None,
    ) -> Usage:
        """Folds a sequence into the state without generating."""
        call = self._cursor.append(sequence, expected_position, request_id)
        try:
            status, usage = await self._send(call, timeout)
        except asyncio.CancelledError:
            self._cursor.lose()
            raise
        except SSPError as error:
            self._cursor.failed(error)
            raise
        self._cursor.note(status)
        return usage

    def generate(
        self,
        prompt: SequenceLike | None = None,
        *,
        sampling_params: SamplingParams | None = None,
        expected_position: int | None = None,
        request_id: str = "",
        stream_options: StreamOptions | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerateStream:
        """Continues the session, after `prompt` if there is one; see `Client.generate`."""
        call = self._cursor.generate(
            prompt,
            sampling_params=calls.sampling(sampling_params, sampling),
            expected_position=expected_position,
            request_id=request_id,
            stream_options=stream_options,
        )
        return AsyncGenerateStream(self._transport, call, timeout=timeout, cursor=self._cursor)

    async def complete(
        self,
        prompt: SequenceLike | None = None,
        *,
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion:
        """Generates to the end and returns the whole."""
        gathering = Gathering()
        async with self.generate(prompt, sampling_params=sampling_params, timeout=timeout, **sampling) as stream:
            async for chunk in stream:
                gathering.add(chunk)
        return gathering.only()

    async def generate_text(
        self,
        prompt: SequenceLike | None = None,
        *,
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Generates to the end and returns the text."""
        return (await self.complete(prompt, sampling_params=sampling_params, timeout=timeout, **sampling)).text

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
        call = self._cursor.fork(routing_key, expected_position, request_id)
        info = await self._transport.unary(call, timeout)
        return AsyncSession(self._transport, self._cursor.forked(info), model=info.model, owned=True)

    async def checkpoint(
        self, name: str, *, expected_position: int | None = None, timeout: float | None = None
    ) -> SessionStatus:
        """Keeps the state of now under a name, in place of an older one of that name."""
        status = await self._transport.unary(self._cursor.checkpoint(name, expected_position), timeout)
        self._cursor.note(status)
        return status

    async def rewind(
        self, name: str, *, expected_position: int | None = None, timeout: float | None = None
    ) -> SessionStatus:
        """Puts the session back to a checkpoint, which stays; raises `NotFound` if there is none of that name."""
        try:
            status = await self._transport.unary(self._cursor.rewind(name, expected_position), timeout)
        except SSPError as error:
            self._cursor.failed(error)
            raise
        self._cursor.note(status)
        return status

    async def peek(
        self,
        continuations: Sequence[SequenceLike],
        *,
        expected_position: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Score, ...]:
        """How likely each continuation is; the session stays as it is."""
        return await self._transport.unary(self._cursor.peek(continuations, expected_position), timeout)

    async def drop_checkpoint(self, name: str, *, timeout: float | None = None) -> None:
        """Frees a checkpoint."""
        await self._transport.unary(calls.drop_checkpoint(name, session_id=self.id), timeout)

    async def info(self, *, timeout: float | None = None) -> SessionInfo:
        """Asks the server where the session stands; `position` and `version` follow."""
        info = await self._transport.unary(calls.get_session(self.id), timeout)
        self._cursor.note(info.status)
        self.model = info.model
        return info

    async def close(self, *, timeout: float | None = None) -> SessionStatus:
        """Ends the session and frees its state; the answer is where it stood."""
        self._owned = False
        status = await self._transport.unary(calls.close_session(self.id), timeout)
        self._cursor.note(status)
        return status

    def detach(self) -> str:
        """Lets the session outlive its block; returns the id to take it up again."""
        self._owned = False
        return self.id

    async def _send(self, call: calls.Call[AppendAnswer], timeout: float | None) -> AppendAnswer:
        try:
            return await self._transport.unary(call, timeout)
        except Unavailable as error:
            await asyncio.sleep(pause_before_retry(error))
            return await self._transport.unary(call, timeout)

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
