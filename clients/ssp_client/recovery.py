"""Keeps a session going when its server dies and comes back with what it had saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

import grpc

from ssp_client import calls
from ssp_client.calls import Call
from ssp_client.cursor import Cursor
from ssp_client.errors import PositionMismatch, SSPError, Unavailable
from ssp_client.session_log import Entry
from ssp_client.transport import Transport
from ssp_client.tries import Tries
from ssp_client.types import SessionInfo

T = TypeVar("T")

# How long a call that was cut may take to end, in seconds, and between two looks.
END_PATIENCE, LOOK = 2.0, 0.01


class Recovery:
    """Of one session, as its cursor follows it."""

    def __init__(self, transport: Transport, cursor: Cursor) -> None:
        self._transport, self.cursor = transport, cursor

    def tries(self) -> Tries:
        """Of one call. A session that no server ever answered for is not waited for."""
        return Tries(self._transport.recovery_seconds if self.cursor.is_known else 0.0)

    def unary(self, call: Call[T], timeout: float | None = None, *, again: Call[T] | None = None) -> T:
        """Sends a call until it is answered. `again` is what to send after a failure, if that needs no restored
        session."""
        tries = self.tries()
        while True:
            try:
                return self._transport.unary(call, timeout)
            except SSPError as error:
                self.recover(error, tries, restores=again is None)
                call = again or call

    def recover(self, error: SSPError, tries: Tries, *, restores: bool = True) -> None:
        """Returns when the call that failed may be sent again; raises what is final."""
        while True:
            pause = tries.before_retry(error)
            if pause is None:
                raise error
            time.sleep(pause)
            may_be_lost = isinstance(error, PositionMismatch)
            try:
                if (restores or may_be_lost) and not self.restore() and may_be_lost:
                    raise error
                return
            except Unavailable as failure:
                error = failure

    def info(self, timeout: float | None = None, *, with_health: bool = False) -> SessionInfo:
        """Where the session stands on the server, after what it lost was done again."""
        call = calls.get_session(self.cursor.session_id, with_health=with_health)
        tries = self.tries()
        while True:
            try:
                info = self._transport.unary(call, timeout)
                repeated = self._repeat(self.cursor.missing(info.status))
                return self._transport.unary(call, timeout) if repeated else info
            except SSPError as error:
                self.recover(error, tries, restores=False)

    def restore(self) -> bool:
        """Has the server do again what it lost of the calls that have ended; False if it lost nothing."""
        info = self._transport.unary(calls.get_session(self.cursor.session_id))
        return self._repeat(self.cursor.missing(info.status))

    def settle(self) -> None:
        """After a call that was cut: has the server save what that left behind. Nothing else is open then."""
        if self.cursor.is_settled or not self._transport.recovery_seconds:
            return
        tries = self.tries()
        while not self.cursor.is_settled:
            try:
                self._settle()
            except Unavailable as error:
                self.recover(error, tries, restores=False)

    def _settle(self) -> None:
        info = self._idle()
        self._repeat(self.cursor.missing(info.status))
        self.cursor.settled(self._transport.unary(calls.commit(self.cursor.session_id)))

    def _idle(self) -> SessionInfo:
        deadline = time.monotonic() + END_PATIENCE
        while True:
            info = self._transport.unary(calls.get_session(self.cursor.session_id))
            if not info.busy or time.monotonic() > deadline:
                return info
            time.sleep(LOOK)

    def _repeat(self, entries: Sequence[Entry]) -> bool:
        for entry in entries:
            if entry.streams:
                self._stream_again(entry)
            else:
                self._transport.unary(entry.again)
        return bool(entries)

    def _stream_again(self, entry: Entry) -> None:
        try:
            for _ in self._transport.stream(entry.again):
                pass
        except grpc.RpcError as error:
            raise self._transport.exception(error) from error
