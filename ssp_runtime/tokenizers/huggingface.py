"""Vocabularies in a `tokenizer.json`."""

import hashlib
import json
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import tokenizers as library

from ssp_runtime.errors import ArtifactError
from ssp_runtime.tokenizers.base import Detokenizer, Tokenizer, ends_to_json
from ssp_runtime.tokenizers.decoding import decoding
from ssp_runtime.tokenizers.pieces import PieceDetokenizer

VOCABULARY_FILE = "tokenizer.json"
_USUAL_MASKS = ("[MASK]", "<mask>")


class HuggingFaceTokenizer(Tokenizer):
    """As the `tokenizers` library reads the file. Special tokens are no text."""

    kind = "huggingface"

    def __init__(
        self, contents: bytes, bos_id: int | None = None, eos_ids: tuple[int, ...] = (), mask_id: int | None = None
    ) -> None:
        """Without `mask_id` the mask is the special token [MASK] or <mask>, if there is one. Raises `ArtifactError`."""
        self._contents, self._bos_id, self._eos_ids, self._given_mask_id = contents, bos_id, eos_ids, mask_id
        self._library = _parsed(contents)
        self._library.no_truncation()
        self._library.no_padding()
        described = json.loads(contents)
        self._decoded = decoding(described.get("decoder"))
        special = {token["content"]: token["id"] for token in described.get("added_tokens", ()) if token["special"]}
        self._special = set(special.values())
        self._special_tokens = {text: number for text, number in special.items() if number != _unknown(described)}
        named = {"beginning or end of a text": (bos_id, *eos_ids), "mask": (mask_id,)}
        for name, number in ((name, number) for name, numbers in named.items() for number in numbers):
            if number is not None and not 0 <= number < self.vocab_size:
                raise ArtifactError(f"the {name} is {number}, which tokenizer.json does not have")

    @property
    def vocab_size(self) -> int:
        return max(self._library.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def bos_id(self) -> int | None:
        return self._bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self._eos_ids

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Without that for what the vocabulary cannot express."""
        return self._special_tokens

    @property
    def mask_id(self) -> int | None:
        if self._given_mask_id is not None:
            return self._given_mask_id
        usual = (self._library.token_to_id(token) for token in _USUAL_MASKS)
        return next((number for number in usual if number in self._special), None)

    def encode(self, text: str) -> list[int]:
        return list(self._library.encode(text, add_special_tokens=False).ids)

    def id_of(self, token: str) -> int | None:
        return self._library.token_to_id(token)

    @property
    def prefix(self) -> list[int]:
        """What the file puts before every text."""
        encoding = self._library.encode("a", add_special_tokens=True)
        marked = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return [number for number, _ in takewhile(lambda pair: pair[1], marked)]

    def detokenizer(self) -> Detokenizer:
        return PieceDetokenizer(self._piece)

    def _piece(self, token: int, begins: bool) -> bytes | None:
        text = None if token in self._special else self._library.id_to_token(token)
        return None if text is None else self._decoded(text, begins)

    def to_json(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._contents).hexdigest()
        mask = {} if self._given_mask_id is None else {"mask_id": self._given_mask_id}
        ends = ends_to_json(self._eos_ids)
        return {**super().to_json(), "bos_id": self._bos_id, "eos_id": ends, **mask, "sha256": digest}

    @property
    def files(self) -> Mapping[str, bytes]:
        return {VOCABULARY_FILE: self._contents}


def _unknown(described: Mapping[str, Any]) -> object:
    """The id for what the vocabulary cannot express, if any."""
    model = described["model"]
    named = model.get("unk_token")
    return model.get("unk_id") if named is None else dict(model["vocab"]).get(named)


def _parsed(contents: bytes) -> library.Tokenizer:
    try:
        return library.Tokenizer.from_buffer(contents)
    except Exception as error:  # the library raises nothing narrower
        raise ArtifactError(f"{VOCABULARY_FILE} cannot be read; copy it again: {error}") from error
