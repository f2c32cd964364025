"""RWKV's "world" vocabulary."""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.tokenizers.base import Detokenizer, Tokenizer
from ssp_runtime.tokenizers.pieces import PieceDetokenizer

VOCABULARY_FILE = "rwkv_vocab.txt"


class WorldTokenizer(Tokenizer):
    """Tokens are byte strings; the longest that fits is taken, from left to right. Id 0 ends a text.

    The vocabulary file has a line a token: its id, a Python literal of it (str or bytes), and how many bytes it has.
    """

    kind = "rwkv_world"

    def __init__(self, contents: bytes) -> None:
        """Raises `ArtifactError`."""
        self._contents = contents
        self._tokens = dict(_tokens(contents))
        self._ids = {token: number for number, token in self._tokens.items()}
        self._beginnings = {token[:end] for token in self._ids for end in range(1, len(token) + 1)}

    @property
    def vocab_size(self) -> int:
        return max(self._tokens) + 1

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (0,)

    def encode(self, text: str) -> list[int]:
        data, ids, start = text.encode(), [], 0
        while start < len(data):
            token = self._longest(data, start)
            ids.append(self._ids[token])
            start += len(token)
        return ids

    def _longest(self, data: bytes, start: int) -> bytes:
        """Raises `InvalidRequest` if no token fits."""
        longest, end = b"", start + 1
        while end <= len(data) and (part := data[start:end]) in self._beginnings:
            longest = part if part in self._ids else longest
            end += 1
        if not longest:
            raise InvalidRequest(f"the vocabulary has no token for the byte {data[start]:#04x}, number {start}")
        return longest

    def detokenizer(self) -> Detokenizer:
        return PieceDetokenizer(self._piece)

    def _piece(self, token: int, _begins: bool) -> bytes | None:
        return self._tokens.get(token)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "sha256": hashlib.sha256(self._contents).hexdigest()}

    @property
    def files(self) -> Mapping[str, bytes]:
        return {VOCABULARY_FILE: self._contents}


def _tokens(contents: bytes) -> Iterator[tuple[int, bytes]]:
    try:
        lines = contents.decode().split("\n")
        yield from (_token(line) for line in lines if line.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ArtifactError(f"the vocabulary file is damaged, or is no RWKV vocabulary: {error}") from error


def _token(line: str) -> tuple[int, bytes]:
    number, _, rest = line.strip().partition(" ")
    literal, _, length = rest.rpartition(" ")
    value = ast.literal_eval(literal)
    token = value.encode() if isinstance(value, str) else bytes(value)
    if not int(number) > 0 or not token or len(token) != int(length):
        raise ValueError(f"line {line[:80]!r} does not say what its token is")
    return int(number), token
