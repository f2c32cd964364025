"""From tokens that are bytes of UTF-8 to text, as they come."""

import codecs
from collections.abc import Callable, Sequence

Piece = Callable[[int, bool], bytes | None]
"""The bytes of a token, given whether it begins the text; None of a token that is no text."""


class PieceDetokenizer:
    """Bytes that cannot be UTF-8 become U+FFFD."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting: list[tuple[int, int]] = []  # an id and how many bytes it has
        self._begins = True

    @property
    def waiting(self) -> list[int]:
        return [token for token, _ in self._waiting]

    def follow(self, ids: Sequence[int]) -> None:
        self._begins = self._begins and all(self._piece(token, True) is None for token in ids)

    def push(self, ids: Sequence[int]) -> str:
        if not self._begins and not self._waiting:
            pieces = [piece for token in ids if (piece := self._piece(token, False)) is not None]
            data = b"".join(pieces)
            if data.isascii():
                return data.decode()
        return "".join(map(self._next, ids))

    def finish(self) -> str:
        self._waiting.clear()
        return self._decoder.decode(b"", final=True)

    def _next(self, token: int) -> str:
        piece = self._piece(token, self._begins)
        if piece is None:
            return ""
        self._begins = False
        text = self._decoder.decode(piece)
        self._waiting.append((token, len(piece)))
        self._forget(len(self._decoder.getstate()[0]))
        return text

    def _forget(self, num_bytes: int) -> None:
        """Of the ids that waited, those whose bytes are not among the last so many."""
        total = sum(count for _, count in self._waiting)
        while self._waiting and total - self._waiting[0][1] >= num_bytes:
            total -= self._waiting.pop(0)[1]
