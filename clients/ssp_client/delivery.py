"""What of a stream has reached the caller, so that a broken one can be taken up again without repeats."""

from __future__ import annotations

from dataclasses import replace

from ssp_client.errors import SSPError, Unavailable
from ssp_client.types import GenerateChunk

# Seconds before each try in a row, when nothing of them got through.
PAUSES = (0.1, 0.4, 1.0)


class Pauses:
    """Before each try in a row to take up a stream that broke."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Something got through."""
        self._left = iter(PAUSES)

    def before_retry(self, error: SSPError) -> float | None:
        """Seconds to wait, or None if `error` is final."""
        return next(self._left, None) if isinstance(error, Unavailable) else None


class Delivery:
    """Counts one completion's tokens and characters.

    A second call with the same request_id is answered from the beginning and in other pieces: `fresh` drops what
    the caller already has.
    """

    def __init__(self) -> None:
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

    def begin_again(self) -> None:
        """The stream is taken up again."""
        self._skip_tokens, self._skip_characters = self._tokens, self._characters
