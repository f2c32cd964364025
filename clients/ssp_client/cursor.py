"""What the client knows of a session's place, and the calls it therefore makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ssp_client import calls
from ssp_client.calls import Call
from ssp_client.errors import OUTCOME_UNKNOWN, SSPError
from ssp_client.types import (
    GenerateChunk,
    SamplingParams,
    Score,
    SequenceLike,
    SessionInfo,
    SessionStatus,
    StreamOptions,
    Usage,
)

AppendAnswer: TypeAlias = tuple[SessionStatus, Usage]


class Cursor:
    """Follows one session through the answers of its calls; no I/O.

    `position` is None while it is unknown: before the first answer, and after a call that was cut, because the
    server may have computed a few tokens more than it could deliver.
    """

    def __init__(self, session_id: str, *, check_position: bool, status: SessionStatus | None = None) -> None:
        self.session_id = session_id
        self.position = status.position if status else None
        self.version = status.version if status else None
        self._check_position = check_position

    def note(self, status: SessionStatus) -> None:
        """An answer tells where the session stands."""
        self.position, self.version = status.position, status.version

    def lose(self) -> None:
        """Nobody told where the session stands now."""
        self.position = self.version = None

    def failed(self, error: SSPError) -> None:
        """A call failed: a refusal changes nothing, anything else may have."""
        if isinstance(error, OUTCOME_UNKNOWN):
            self.lose()

    def append(self, sequence: SequenceLike, expected_position: int | None, request_id: str) -> Call[AppendAnswer]:
        """The next Append."""
        return calls.append(
            sequence,
            session_id=self.session_id,
            expected_position=self._expected(expected_position),
            request_id=request_id,
        )

    def generate(
        self,
        prompt: SequenceLike | None,
        *,
        sampling_params: SamplingParams,
        expected_position: int | None,
        request_id: str,
        stream_options: StreamOptions | None,
    ) -> Call[GenerateChunk]:
        """The next Generate."""
        return calls.generate(
            prompt,
            model="",
            sampling_params=sampling_params,
            session_id=self.session_id,
            expected_position=self._expected(expected_position),
            request_id=request_id,
            stream_options=stream_options,
        )

    def fork(self, routing_key: str, expected_position: int | None, request_id: str) -> Call[SessionInfo]:
        """The next Fork."""
        expected = self._expected(expected_position)
        return calls.fork(
            session_id=self.session_id, routing_key=routing_key, expected_position=expected, request_id=request_id
        )

    def forked(self, info: SessionInfo) -> Cursor:
        """Follows the session that a Fork made."""
        return Cursor(info.session_id, check_position=self._check_position, status=info.status)

    def checkpoint(self, name: str, expected_position: int | None) -> Call[SessionStatus]:
        """The next Checkpoint."""
        return calls.checkpoint(name, session_id=self.session_id, expected_position=self._expected(expected_position))

    def rewind(self, name: str, expected_position: int | None) -> Call[SessionStatus]:
        """The next Rewind."""
        return calls.rewind(name, session_id=self.session_id, expected_position=self._expected(expected_position))

    def peek(self, continuations: Sequence[SequenceLike], expected_position: int | None) -> Call[tuple[Score, ...]]:
        """The next Peek."""
        expected = self._expected(expected_position)
        return calls.peek(continuations, session_id=self.session_id, expected_position=expected)

    def _expected(self, explicit: int | None) -> int | None:
        return explicit if explicit is not None or not self._check_position else self.position


class Turn:
    """One Generate call seen from its session's cursor; without a session it follows nothing."""

    def __init__(self, cursor: Cursor | None = None) -> None:
        self._cursor = cursor
        self._begun = self._finished = False

    def chunk(self, chunk: GenerateChunk) -> None:
        """A message came."""
        self._begun, self._finished = True, chunk.finish_reason is not None
        if self._cursor and chunk.session:
            self._cursor.note(chunk.session)

    def failed(self, error: SSPError) -> None:
        """The call failed."""
        if self._begun:
            self.ended()
        elif self._cursor:
            self._cursor.failed(error)

    def ended(self) -> None:
        """The stream ended, or was closed before its end."""
        if self._cursor and not self._finished:
            self._cursor.lose()
