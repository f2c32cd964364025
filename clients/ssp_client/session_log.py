"""What a session's calls did since the server last saved it, so that it can do them again; no I/O."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any

from ssp_client import calls
from ssp_client.calls import Call
from ssp_client.errors import PositionMismatch
from ssp_client.types import GenerateChunk, SessionStatus

MAX_CALLS = 1_000
# Of requests and of tokens, 4 bytes each. A server takes no larger message either, unless it is told to.
MAX_BYTES = 4 * 1024 * 1024


class Entry:
    """A call that advances a session, as it was sent, and what it has brought the client so far."""

    def __init__(self, call: Call[Any], *, streams: bool) -> None:
        self.call, self.streams = call, streams
        self.num_carried = 0  # of its tokens, those that the call before had computed
        self.num_tokens = self.num_characters = 0
        self.token_ids = array("I")
        self.position = 0  # of the session, after the last token that came
        self.was_cut = False

    @property
    def num_bytes(self) -> int:
        return len(self.call.body) + 4 * len(self.token_ids)

    @property
    def fits(self) -> bool:
        """Whether it can be sent again."""
        return self.num_bytes <= MAX_BYTES

    @property
    def has_advanced(self) -> bool:
        """Whether it brought the client something of its own."""
        return not self.streams or not self.was_cut or len(self.token_ids) > self.num_carried

    @property
    def again(self) -> Call[Any]:
        """The same call, with the tokens that the server may have lost; one that was cut ends where it was cut."""
        if not self.token_ids:
            return self.call
        max_tokens = len(self.token_ids) - self.num_carried if self.was_cut else None
        return calls.resumed(self.call, self.token_ids, max_tokens=max_tokens)

    def add(self, chunk: GenerateChunk, status: SessionStatus) -> None:
        """More came; tokens past the bound are not kept."""
        self.position = status.position
        self.num_carried = chunk.carried_tokens
        self.num_tokens += len(chunk.token_ids)
        self.num_characters += len(chunk.text)
        if self.fits:
            self.token_ids.extend(chunk.token_ids)


class SessionLog:
    """Calls that have ended, oldest first; none that the server has saved, and no more than the bounds allow."""

    def __init__(self, position: int = 0) -> None:
        self._entries: deque[Entry] = deque()
        self._num_bytes = 0
        self._begin = position  # the log holds all that came after

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """A call has ended. The oldest ones give way to it if need be."""
        self._entries.append(entry)
        self._num_bytes += entry.num_bytes
        while len(self._entries) > MAX_CALLS or self._num_bytes > MAX_BYTES:
            self._drop_oldest()

    def saved(self, position: int) -> None:
        """The server will not lose what came up to there."""
        while self._entries and self._entries[0].position <= position:
            self._drop_oldest()
        self._begin = max(self._begin, position)

    def restart(self, position: int) -> None:
        """The session stands there from now on, whatever was before."""
        self._entries.clear()
        self._num_bytes, self._begin = 0, position

    def missing(self, position: int) -> Sequence[Entry]:
        """What a server that stands at a position has to do again.

        Raises:
            PositionMismatch: the log does not reach back so far.
        """
        if position < self._begin:
            raise PositionMismatch(
                f"the server lost what this session did after position {position}, and it is too much for the client"
                " to have kept; do that again, or go on from there"
            )
        return [entry for entry in self._entries if entry.position > position]

    def _drop_oldest(self) -> None:
        entry = self._entries.popleft()
        self._num_bytes -= entry.num_bytes
        self._begin = max(self._begin, entry.position)
