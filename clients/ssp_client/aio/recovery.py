"""Keeps a session going when its server dies and comes back with what it had saved, for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TypeVar

import grpc.aio

from ssp_client import calls
from ssp_client.aio.transport import AsyncTransport
from ssp_client.calls import Call
from ssp_client.cursor import Cursor
from ssp_client.errors import PositionMismatch, SSPError, Unavailable
from ssp_client.recovery import END_PATIENCE, LOOK
from ssp_client.session_log import Entry
from ssp_client.tries import Tries
from ssp_client.types import SessionInfo

T = TypeVar("T")


class AsyncRecovery:
    """Of one session; as `Recovery`."""

    def __init__(self, transport: AsyncTransport, cursor: Cursor) -> None:
        self._transport, self.cursor = transport, cursor

    def tries(self) -> Tries:
        """Of one call. A session that no server ever answered for is not waited for."""
        return Tries(self._transport.recovery_seconds if self.cursor.is_known else 0.0)

    async def unary(self, call: Call[T], timeout: float | None = None, *, again: Call[T] | None = None) -> T:
        """Sends a call until it is answered. `again` is what to send after a failure, if that needs no restored
        session."""
        tries = self.tries()
        while True:
            try:
                return await self._transport.unary(call, timeout)
            except SSPError as error:
                await self.recover(error, tries, restores=again is None)
                call = again or call

    async def recover(self, error: SSPError, tries: Tries, *, restores: bool = True) -> None:
        """Returns when the call that failed may be sent again; raises what is final."""
        while True:
            pause = tries.before_retry(error)
            if pause is None:
                raise error
            await asyncio.sleep(pause)
            may_be_lost = isinstance(error, PositionMismatch)
            try:
                if (restores or may_be_lost) and not await self.restore() and may_be_lost:
                    raise error
                return
            except Unavailable as failure:
                error = failure

    async def info(self, timeout: float | None = None, *, with_health: bool = False) -> SessionInfo:
        """Where the session stands on the server, after what it lost was done again."""
        call = calls.get_session(self.cursor.session_id, with_health=with_health)
        tries = self.tries()
        while True:
            try:
                info = await self._transport.unary(call, timeout)
                repeated = await self._repeat(self.cursor.missing(info.status))
                return await self._transport.unary(call, timeout) if repeated else info
            except SSPError as error:
                await self.recover(error, tries, restores=False)

    async def restore(self) -> bool:
        """Has the server do again what it lost of the calls that have ended; False if it lost nothing."""
        info = await self._transport.unary(calls.get_session(self.cursor.session_id))
        return await self._repeat(self.cursor.missing(info.status))

    async def settle(self) -> None:
        """After a call that was cut: has the server save what that left behind. Nothing else is open then."""
        if self.cursor.is_settled or not self._transport.recovery_seconds:
            return
        tries = self.tries()
        while not self.cursor.is_settled:
            try:
                await self._settle()
            except Unavailable as error:
                await self.recover(error, tries, restores=False)

    async def _settle(self) -> None:
        info = await self._idle()
        await self._repeat(self.cursor.missing(info.status))
        self.cursor.settled(await self._transport.unary(calls.commit(self.cursor.session_id)))

    async def _idle(self) -> SessionInfo:
        deadline = time.monotonic() + END_PATIENCE
        while True:
            info = await self._transport.unary(calls.get_session(self.cursor.session_id))
            if not info.busy or time.monotonic() > deadline:
                return info
            await asyncio.sleep(LOOK)

    async def _repeat(self, entries: Sequence[Entry]) -> bool:
        for entry in entries:
            if entry.streams:
                await self._stream_again(entry)
            else:
                await self._transport.unary(entry.again)
        return bool(entries)

    async def _stream_again(self, entry: Entry) -> None:
        try:
            async for _ in self._transport.stream(entry.again):
                pass
        except grpc.aio.AioRpcError as error:
            raise self._transport.exception(error) from error
