"""What the client knows of a session's place, and the calls it therefore makes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from ssp.v1 import common_pb2
from ssp_client import calls, state_calls
from ssp_client.calls import Call
from ssp_client.errors import OUTCOME_UNKNOWN, PositionMismatch, SessionMoved, SSPError
from ssp_client.session_log import Entry, SessionLog
from ssp_client.state_calls import StatePiece
from ssp_client.types import (
    ChatMessage,
    FinishReason,
    GenerateChunk,
    SamplingParams,
    Score,
    SequenceLike,
    SessionInfo,
    SessionStatus,
    StateDtype,
    StreamOptions,
    Usage,
)
from ssp_client.wire import StepPart

AppendAnswer: TypeAlias = tuple[SessionStatus, Usage]


class Cursor:
    """Follows one session through the answers of its calls; no I/O.

    `position` is None while it is unknown: before the first answer, and after a call that was cut, because the
    server may have computed a few tokens more than it could deliver. It is then not settled either: before the next
    call the server has to save what that one left behind. Where other clients advance the session unasked
    (`check_position` is false), nothing of it is kept.
    """

    def __init__(self, session_id: str, *, check_position: bool, status: SessionStatus | None = None) -> None:
        self.session_id = session_id
        self.position = status.position if status else None
        self.version = status.version if status else None
        self.is_known = status is not None  # a server has answered before
        self.is_settled = True
        self._generating = ""  # the request_id of the last Generate
        self._receipt: common_pb2.Receipt | None = None  # of that, if it was cut
        self._check_position = check_position
        self._log = SessionLog(status.position if status else 0)

    def note(self, status: SessionStatus) -> None:
        """An answer tells where the session stands, and how much of it is saved."""
        self.position, self.version, self.is_known = status.position, status.version, True
        self._log.saved(status.committed_position)

    def lose(self) -> None:
        """Nobody told where the session stands now."""
        self.position = self.version = None
        self.is_settled = not self._check_position

    def ended(self, entry: Entry) -> None:
        """A call has advanced the session; it may have been cut."""
        self._receipt = self._receipt_of(entry) if entry.was_cut else None
        if self._check_position and entry.has_advanced:
            self._log.add(entry)
        if entry.was_cut:
            self.lose()

    def appended(self, call: Call[AppendAnswer], status: SessionStatus) -> None:
        """An Append has advanced the session."""
        entry = Entry(call, streams=False)
        entry.position = status.position
        self.ended(entry)
        self.note(status)

    def stepped(self, status: SessionStatus) -> None:
        """A Step, which is not done again, has advanced the session."""
        self._log.restart(status.position)
        self.note(status)

    def rewound(self, status: SessionStatus) -> None:
        """The session was put back, and saved there."""
        self._log.restart(status.position)
        self._receipt = None
        self.settled(status)

    def settled(self, status: SessionStatus) -> None:
        """The server has saved the session where it stands."""
        self.is_settled = True
        self.note(status)

    def missing(self, status: SessionStatus) -> Sequence[Entry]:
        """The calls that a server has to do again.

        Raises:
            PositionMismatch: it lost more than the client keeps.
        """
        try:
            return self._log.missing(status.position)
        except PositionMismatch:
            self._log.restart(status.position)
            self.lose()
            raise

    def failed(self, error: SSPError) -> None:
        """A call failed: a refusal changes nothing, anything else may have.

        Where another server has gone on with the session, what this one did since it saved it last never was.
        """
        if isinstance(error, SessionMoved):
            self._log.restart(0)
        if isinstance(error, OUTCOME_UNKNOWN):
            self.lose()

    def append(
        self, sequence: SequenceLike, expected_position: int | None, request_id: str, priority: int
    ) -> Call[AppendAnswer]:
        """The next Append."""
        return calls.append(
            sequence,
            session_id=self.session_id,
            expected_position=self._expected(expected_position),
            request_id=request_id,
            priority=priority,
            receipt=self._receipt,
        )

    def generate(
        self,
        prompt: SequenceLike | None,
        *,
        sampling_params: SamplingParams,
        expected_position: int | None,
        request_id: str,
        stream_options: StreamOptions | None,
        priority: int,
        messages: Sequence[ChatMessage] | None = None,
    ) -> Call[GenerateChunk]:
        """The next Generate, with a seed, so that it draws the same when it is done again."""
        self._generating = request_id or calls.new_request_id()
        seed = secrets.randbits(63) if sampling_params.seed is None else sampling_params.seed
        return calls.generate(
            prompt,
            model="",
            sampling_params=replace(sampling_params, seed=seed),
            session_id=self.session_id,
            expected_position=self._expected(expected_position),
            request_id=self._generating,
            stream_options=stream_options,
            priority=priority,
            receipt=self._receipt,
            messages=messages,
        )

    def step(self, top_logprobs: int, expected_position: int | None) -> Call[StepPart]:
        """The next Step."""
        expected = self._expected(expected_position)
        return calls.step(session_id=self.session_id, expected_position=expected, top_logprobs=top_logprobs)

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

    def export(self, checkpoint: str, dtype: StateDtype | None, expected_position: int | None) -> Call[StatePiece]:
        """The next ExportState; a checkpoint stays what it is, wherever the session has gone."""
        expected = expected_position if checkpoint else self._expected(expected_position)
        return state_calls.export_state(
            session_id=self.session_id, checkpoint=checkpoint, dtype=dtype, expected_position=expected
        )

    def _receipt_of(self, entry: Entry) -> common_pb2.Receipt:
        return common_pb2.Receipt(
            request_id=self._generating, num_tokens=entry.num_tokens, num_characters=entry.num_characters
        )

    def _expected(self, explicit: int | None) -> int | None:
        return explicit if explicit is not None or not self._check_position else self.position


class Turn:
    """One Generate call seen from its session's cursor; without a session it follows nothing."""

    def __init__(self, call: Call[GenerateChunk], cursor: Cursor | None = None) -> None:
        self._cursor = cursor
        self._entry = Entry(call, streams=True)
        self.has_begun = self._finished = False

    @property
    def can_resume(self) -> bool:
        """Whether the call can be taken up again."""
        return self._cursor is not None and self._entry.fits

    @property
    def again(self) -> Call[GenerateChunk]:
        """The call, to take it up again."""
        return self._entry.again

    def chunk(self, chunk: GenerateChunk) -> None:
        """Something new came."""
        self.has_begun, self._finished = True, chunk.finish_reason is not None
        if self._cursor is None or chunk.session is None:
            return
        self._entry.add(chunk, chunk.session)
        if self._finished:
            self._entry.was_cut = chunk.finish_reason is FinishReason.ABORT
            self._cursor.ended(self._entry)
        self._cursor.note(chunk.session)

    def failed(self, error: SSPError) -> None:
        """The call failed."""
        if self.has_begun and not isinstance(error, SessionMoved):
            self.ended()
        elif self._cursor:
            self._cursor.failed(error)

    def ended(self) -> None:
        """The stream ended, or was closed before its end."""
        if self._cursor is None or self._finished:
            return
        self._finished = self._entry.was_cut = True
        self._cursor.ended(self._entry)
