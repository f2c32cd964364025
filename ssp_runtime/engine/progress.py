"""What a call has brought so far: part for its reader to take, part taken and kept for a retry."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence as Ids
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class Receipt(NamedTuple):
    """What a client has received of a call whose stream was cut."""

    request_id: str
    num_tokens: int
    num_characters: int


class Progress(NamedTuple):
    """What one step brought to one call, and the sequence's position then. The last has a finish reason, and with
    ERROR the error. `outputs` are a stepping call's, one row a token that was folded in; with `top_ids` they are the
    log-probabilities of those tokens."""

    position: int
    token_ids: tuple[int, ...] = ()
    text: str = ""
    outputs: npt.NDArray[np.float32] | None = None
    top_ids: npt.NDArray[np.int64] | None = None
    finish_reason: FinishReason | None = None
    error: Exception | None = None


class Results:
    """One thread puts, one reader takes. What was taken is kept as ids and text only."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        self.num_tokens = 0  # put so far
        self._unread: deque[Progress] = deque()
        self._taken_ids: list[int] = []
        self._taken_texts: list[str] = []
        self._taking = threading.Lock()  # while something is neither taken nor unread
        self.num_flushed = 0  # characters at the end that are no part of the text if the call goes on

    @property
    def finish_reason(self) -> FinishReason | None:
        return self.last.finish_reason if self.last is not None else None

    @property
    def num_unread(self) -> int:
        """Tokens."""
        return self.num_tokens - len(self._taken_ids)

    @property
    def has_unread(self) -> bool:
        """The last may hold no token."""
        return bool(self._unread)

    @property
    def num_takes(self) -> int:
        """How often something was taken and not put back."""
        return len(self._taken_texts)

    def put(self, progress: Progress) -> None:
        self._unread.append(progress)
        self.num_tokens += len(progress.token_ids)
        self.last = progress
        if progress.finish_reason is FinishReason.ABORT:
            self.num_flushed = len(progress.text)

    def take(self, max_tokens: int) -> list[Progress]:
        """What came since, up to that many tokens, or the first of it if that has more."""
        taken: list[Progress] = []
        tokens = 0
        with self._taking:
            while self._unread and (not taken or tokens + len(self._unread[0].token_ids) <= max_tokens):
                taken.append(self._unread.popleft())
                tokens += len(taken[-1].token_ids)
            for progress in taken:
                self._taken_ids += progress.token_ids
            if taken:
                self._taken_texts.append("".join([progress.text for progress in taken]))
        return taken

    def put_back(self, taken: Ids[Progress]) -> None:
        """Undoes the last `take`, whose result could not be delivered."""
        count = sum(len(progress.token_ids) for progress in taken)
        with self._taking:
            self._unread.extendleft(reversed(taken))
            del self._taken_ids[len(self._taken_ids) - count :]
            if taken:
                self._taken_texts.pop()

    def taken(self) -> Progress:
        """All that was taken, as one."""
        return Progress(position=0, token_ids=tuple(self._taken_ids), text="".join(self._taken_texts))

    def untaken(self) -> Progress:
        """All tokens and text that no reader took, as one."""
        unread = list(self._unread)
        ids = tuple(token for progress in unread for token in progress.token_ids)
        return Progress(position=0, token_ids=ids, text="".join(progress.text for progress in unread))

    def beyond(self, receipt: Receipt) -> Progress:
        """All tokens and text so far, but for what the client has received."""
        taken, untaken = self.taken(), self.untaken()
        ids, text = (*taken.token_ids, *untaken.token_ids), taken.text + untaken.text
        return Progress(position=0, token_ids=ids[receipt.num_tokens :], text=text[receipt.num_characters :])

    def everything(self) -> Progress:
        """All tokens and text so far, without what was let go only because the call was cut."""
        taken, untaken = self.taken(), self.untaken()
        text = taken.text + untaken.text
        kept = text[: len(text) - self.num_flushed]
        return Progress(position=0, token_ids=(*taken.token_ids, *untaken.token_ids), text=kept)

    def copy_results(self, other: Results) -> None:
        """Has the same results as the other from now on."""
        self.last, self.num_tokens, self.num_flushed = other.last, other.num_tokens, other.num_flushed
        with other._taking:
            self._unread = other._unread.copy()
            self._taken_ids, self._taken_texts = [*other._taken_ids], [*other._taken_texts]

    def restore_results(self, *, taken: Progress, untaken: Progress, num_flushed: int, last: Progress) -> None:
        """Has the results that another process had."""
        self._taken_ids, self._taken_texts = [*taken.token_ids], [taken.text]
        self._unread = deque([untaken] if untaken.token_ids or untaken.text else [])
        self.num_tokens = len(taken.token_ids) + len(untaken.token_ids)
        self.num_flushed, self.last = num_flushed, last
