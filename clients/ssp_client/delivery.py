"""What of a stream has reached the caller, so that a broken one can be taken up again without repeats."""

from __future__ import annotations

from dataclasses import replace

from ssp_client.errors import SSPError, Unavailable
from ssp_client.types import GenerateChunk

# How long to wait before a second try, in seconds.
DEFAULT_PAUSE = 0.25
LONGEST_PAUSE = 5.0


def pause_before_retry(error: SSPError) -> float:
    """The server's own hint within reason, else a moment."""
    return DEFAULT_PAUSE if error.retry_after is None else min(error.retry_after, LONGEST_PAUSE)


class Delivery:
    """Counts one completion's tokens and characters.

    A second call with the same request_id is answered from the beginning and in other pieces: `fresh` drops what
    the caller already has.
    """

    def __init__(self, *, retries: int = 0) -> None:
        self._retries_left = retries
        self._tokens = self._characters = 0
        self._skip_tokens = self._skip_characters = 0

    def fresh(self, chunk: GenerateChunk) -> GenerateChunk | None:
        """The part of a chunk that is new to the caller; None if nothing is."""
        token_ids, text = chunk.token_ids[self._skip_tokens :], chunk.text[self._skip_characters :]
        self._skip_tokens -= len(chunk.token_ids) - len(token_ids)
        self._skip_characters -= len(chunk.text) - len(text)
        self._tokens += len(token_ids)
        self._characters += len(text)
        if not (token_ids or text or chunk.finish_reason):
            return None
        return replace(chunk, token_ids=token_ids, text=text)

    def retry(self, error: SSPError) -> float | None:
        """Seconds to wait before taking the stream up again, or None if `error` is final."""
        if not self._retries_left or not isinstance(error, Unavailable):
            return None
        self._retries_left -= 1
        self._skip_tokens, self._skip_characters = self._tokens, self._characters
        return pause_before_retry(error)
