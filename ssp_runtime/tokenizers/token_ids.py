"""A vocabulary that nobody knows the text of."""

from typing import Any

from ssp_runtime.errors import InvalidRequest
from ssp_runtime.tokenizers.base import Detokenizer, Tokenizer
from ssp_runtime.tokenizers.pieces import PieceDetokenizer


class TokenIds(Tokenizer):
    """Ids without text, of a checkpoint that came without its vocabulary."""

    kind = "ids"

    def __init__(self, vocab_size: int, eos_id: int | None = None) -> None:
        self._vocab_size, self._eos_id = vocab_size, eos_id

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eos_id(self) -> int | None:
        return self._eos_id

    def encode(self, text: str) -> list[int]:  # noqa: ARG002  # whatever it is
        raise InvalidRequest(
            "this model came without its vocabulary and takes token ids only;"
            " give it one with ssp-model convert --tokenizer FILE"
        )

    def detokenizer(self) -> Detokenizer:
        return PieceDetokenizer(lambda _, __: None)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "vocab_size": self._vocab_size, "eos_id": self._eos_id}
