"""One Step call: what is sent, and what comes back put together; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ssp_client import calls
from ssp_client.cursor import Cursor
from ssp_client.errors import SSPError
from ssp_client.types import SequenceLike, TopLogprobs
from ssp_client.wire import StepPart

# One row for each token or vector: logits, or what the model predicts.
Outputs: TypeAlias = npt.NDArray[np.float32]
T = TypeVar("T")


def joined(parts: Sequence[StepPart]) -> Outputs:
    """The outputs of one input."""
    return np.concatenate([part.outputs for part in parts])


def joined_top(parts: Sequence[StepPart]) -> tuple[TopLogprobs, ...]:
    """The likeliest tokens after each token of one input."""
    return tuple(top for part in parts for top in part.top)


def answers(top_logprobs: int) -> Callable[[Sequence[StepPart]], Any]:
    """How the parts of an answer are put together."""
    return joined_top if top_logprobs else joined


class Steps(Generic[T]):
    """Follows one call; `put` and `take` may be called in two threads."""

    def __init__(
        self,
        cursor: Cursor,
        answer: Callable[[Sequence[StepPart]], T],
        *,
        top_logprobs: int,
        expected_position: int | None,
    ) -> None:
        self.call = cursor.step(top_logprobs, expected_position)
        self._cursor, self._answer = cursor, answer
        self._num_put = self._num_taken = 0
        self._parts: list[StepPart] = []

    @property
    def num_unanswered(self) -> int:
        """Inputs that were put and whose answers were not taken."""
        return self._num_put - self._num_taken

    def put(self, sequence: SequenceLike) -> bytes:
        """The message for an input; raises ValueError if there is nothing in it."""
        if len(sequence) == 0:
            raise ValueError("there is nothing to send; give at least one token or vector")
        body = calls.step_body(sequence)
        self._num_put += 1
        return body

    def take(self, body: bytes) -> T | None:
        """The answer to an input, when its last message has come."""
        part = self.call.parse(body)
        self._cursor.stepped(part.status)
        if part.is_last:
            return None
        self._parts.append(part)
        if part.num_left:
            return None
        parts, self._parts = self._parts, []
        self._num_taken += 1
        return self._answer(parts)

    def failed(self, error: SSPError) -> None:
        """The call failed."""
        if self._num_put:
            self._cursor.lose()
        else:
            self._cursor.failed(error)

    def cut(self) -> None:
        """The call was cancelled: the server may have gone on further than it has told."""
        self._cursor.lose()
