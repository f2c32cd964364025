"""A session: a state on the server that outlives calls."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack, overload

from ssp_client import calls
from ssp_client.completion import Completion, Gathering
from ssp_client.cursor import Cursor
from ssp_client.errors import NotFound, SSPError
from ssp_client.files import FileLike, written
from ssp_client.recovery import Recovery
from ssp_client.step_stream import StepStream
from ssp_client.steps import Outputs, Steps, answers
from ssp_client.stream import GenerateStream
from ssp_client.transfer import download
from ssp_client.transport import Transport
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


class Session:
    """A session of the server, made by `Client.open_session` or taken up again by `Client.session`.

    Every call carries where the session stood last, so that a second writer is noticed (`PositionMismatch`), and a
    fresh request_id; if the connection breaks or the server dies, the call is tried again under the same one, which
    never advances the state twice. What a server lost when it died it is made to do again before. A with-block closes
    the session at its end if it was opened for it. Not for several threads at once: the server lets one call at a time
    advance a session.
    """

    def __init__(self, transport: Transport, cursor: Cursor, *, model: str = "", owned: bool = False) -> None:
        self._transport, self._cursor, self._owned = transport, cursor, owned
        self._recovery = Recovery(transport, cursor)
        self.model = model

    @property
    def id(self) -> str:
        """`<routing_key>.<secret>`; whoever holds it can use the session."""
        return self._cursor.session_id

    @property
    def position(self) -> int | None:
        """Tokens taken in or generated so far; None while unknown (`info` asks), as after a stream that was cut."""
        return self._cursor.position

    @property
    def version(self) -> int | None:
        """Grows by one with every finished call that changed the session; None while unknown."""
        return self._cursor.version

    def append(
        self,
        sequence: SequenceLike,
        *,
        expected_position: int | None = None,
        request_id: str = "",
        priority: int = 0,
        timeout: float | None = None,
    ) -> Usage:
        """Folds a sequence into the state without generating."""
        self._recovery.settle()
        call = self._cursor.append(sequence, expected_position, request_id, priority)
        try:
            status, usage = self._recovery.unary(call, timeout)
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
    ) -> GenerateStream:
        """Continues the session, after `prompt` if there is one; see `Client.generate`."""
        self._recovery.settle()
        call = self._cursor.generate(
            prompt,
            messages=messages,
            sampling_params=calls.sampling(sampling_params, sampling),
            expected_position=expected_position,
            request_id=request_id,
            stream_options=stream_options,
            priority=priority,
        )
        return GenerateStream(self._transport, call, timeout=timeout, recovery=self._recovery)

    def complete(
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
        with self.generate(
            prompt, messages=messages, sampling_params=sampling_params, timeout=timeout, **sampling
        ) as stream:
            for chunk in stream:
                gathering.add(chunk)
        return gathering.only()

    def generate_text(
        self,
        prompt: SequenceLike | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Generates to the end and returns the text."""
        return self.complete(
            prompt, messages=messages, sampling_params=sampling_params, timeout=timeout, **sampling
        ).text

    @overload
    def step(self, *, expected_position: int | None = None, timeout: float | None = None) -> StepStream[Outputs]: ...
    @overload
    def step(
        self, *, top_logprobs: int, expected_position: int | None = None, timeout: float | None = None
    ) -> StepStream[tuple[TopLogprobs, ...]]: ...
    def step(
        self, *, top_logprobs: int = 0, expected_position: int | None = None, timeout: float | None = None
    ) -> StepStream[Any]:
        """Feeds the session bit by bit, each bit answered by the model's outputs: for loops that wait for every answer.

            with session.step() as stream:
                for values in sensor:
                    predictions = stream.send(values)  # (L, d_input) -> (L, d_output); tokens -> (L, vocab_size)

        With `top_logprobs` the answer is a `TopLogprobs` for each token instead of its logits. Nothing is pending
        afterwards: the next `generate` must bring input.
        """
        steps: Steps[Any] = Steps(
            self._cursor, answers(top_logprobs), top_logprobs=top_logprobs, expected_position=expected_position
        )
        return StepStream(self._transport, steps, timeout=timeout)

    def fork(
        self,
        *,
        routing_key: str = "",
        expected_position: int | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Session:
        """Another session that stands where this one does and goes its own way; as fast at every position.

        It is closed at the end of a with-block of its own. Checkpoints stay with this one.
        """
        self._recovery.settle()
        call = self._cursor.fork(routing_key, expected_position, request_id)
        info = self._recovery.unary(call, timeout)
        return Session(self._transport, self._cursor.forked(info), model=info.model, owned=True)

    def checkpoint(
        self, name: str, *, expected_position: int | None = None, timeout: float | None = None
    ) -> SessionStatus:
        """Keeps the state of now under a name, in place of an older one of that name."""
        self._recovery.settle()
        status = self._recovery.unary(self._cursor.checkpoint(name, expected_position), timeout)
        self._cursor.note(status)
        return status

    def rewind(self, name: str, *, expected_position: int | None = None, timeout: float | None = None) -> SessionStatus:
        """Puts the session back to a checkpoint, which stays; raises `NotFound` if there is none of that name."""
        call, again = self._cursor.rewind(name, expected_position), calls.rewind(name, session_id=self.id)
        try:
            status = self._recovery.unary(call, timeout, again=again)
        except SSPError as error:
            self._cursor.failed(error)
            raise
        self._cursor.rewound(status)
        return status

    def peek(
        self,
        continuations: Sequence[SequenceLike],
        *,
        expected_position: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Score, ...]:
        """How likely each continuation is; the session stays as it is."""
        self._recovery.settle()
        return self._recovery.unary(self._cursor.peek(continuations, expected_position), timeout)

    def export(
        self,
        file: FileLike,
        *,
        checkpoint: str = "",
        dtype: StateDtype | None = None,
        expected_position: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Writes the session's state to a file, from which `Client.import_session` goes on, here or elsewhere.

        Args:
            file: a path, whose file appears whole or not at all, or a file opened in binary mode.
            checkpoint: write this checkpoint instead of where the session stands.
            dtype: convert the state's numbers, for half the bytes; the import then goes on a little differently.

        Returns:
            the position of what was written.
        """
        call = self._cursor.export(checkpoint, dtype, expected_position)
        with written(file) as out:
            return download(self._transport, call, out, timeout)

    def drop_checkpoint(self, name: str, *, timeout: float | None = None) -> None:
        """Frees a checkpoint."""
        call = calls.drop_checkpoint(name, session_id=self.id)
        self._recovery.unary(call, timeout, again=call)

    def commit(self, *, timeout: float | None = None) -> SessionStatus:
        """Has the server save the session now, so that a restart does not lose it; for servers that do not by
        themselves. Does nothing without a store."""
        self.info(timeout=timeout)
        status = self._recovery.unary(calls.commit(self.id), timeout)
        self._cursor.settled(status)
        return status

    def info(self, *, with_health: bool = False, timeout: float | None = None) -> SessionInfo:
        """Asks the server where the session stands, and how large its state's numbers are if that is wanted; `position`
        and `version` follow."""
        self._recovery.settle()
        info = self._recovery.info(timeout, with_health=with_health)
        self._cursor.note(info.status)
        self.model = info.model
        return info

    def close(self, *, timeout: float | None = None) -> SessionStatus:
        """Ends the session and frees its state; the answer is where it stood."""
        self._owned = False
        call = calls.close_session(self.id)
        status = self._recovery.unary(call, timeout, again=call)
        self._cursor.note(status)
        return status

    def detach(self) -> str:
        """Lets the session outlive its with-block; returns the id to take it up again."""
        self._owned = False
        return self.id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._owned:
            return
        # What ended the block says more than a close that failed after it.
        with contextlib.suppress(SSPError if error else NotFound):
            self.close()
