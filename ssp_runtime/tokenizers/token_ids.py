"""A vocabulary that nobody knows the text of."""

from typing import Any

from ssp_runtime.errors import InvalidRequest
from ssp_runtime.tokenizers.base import Detokenizer, Tokenizer, ends_to_json
from ssp_runtime.tokenizers.pieces import PieceDetokenizer


class TokenIds(Tokenizer):
    """Ids without text, of a checkpoint that came without its vocabulary."""

    kind = "ids"

    def __init__(self, vocab_size: int, eos_ids: tuple[int, ...] = ()) -> None:
        self._vocab_size, self._eos_ids = vocab_size, eos_ids

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self._eos_ids

    def encode(self, text: str) -> list[int]:  # noqa: ARG002  # whatever it is
        raise InvalidRequest(
            "this model came without its vocabulary and takes token ids only;"
            " give it one with ssp-model convert --tokenizer FILE"
        )

    def detokenizer(self) -> Detokenizer:
        return PieceDetokenizer(lambda _, __: None)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "vocab_size": self._vocab_size, "eos_id": ends_to_json(self._eos_ids)}
