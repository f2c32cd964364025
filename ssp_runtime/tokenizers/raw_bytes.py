"""Bytes as tokens."""

from collections.abc import Mapping
from typing import Any

from ssp_runtime.tokenizers.base import Detokenizer, Tokenizer
from ssp_runtime.tokenizers.pieces import PieceDetokenizer


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes, 0 to 255. A zero byte marks the end of a text, and its beginning unless there is no `bos_id`."""

    kind = "bytes"

    def __init__(self, bos_id: int | None = 0) -> None:
        self._bos_id = bos_id

    @property
    def vocab_size(self) -> int:
        return 256

    @property
    def bos_id(self) -> int | None:
        return self._bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (0,)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return {"\0": 0}

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenizer(self) -> Detokenizer:
        return PieceDetokenizer(_byte)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() if self._bos_id == 0 else {**super().to_json(), "bos_id": self._bos_id}


_BYTES = [bytes((value,)) for value in range(256)]


def _byte(token: int, _begins: bool) -> bytes | None:
    return _BYTES[token] if token < 256 else None
