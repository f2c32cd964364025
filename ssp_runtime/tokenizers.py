"""From text to token ids and back: bytes, and DNA characters."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from ssp_runtime.errors import ArtifactError, InvalidRequest


class Detokenizer(Protocol):
    """Turns ids into text as they come; what cannot be text yet, such as half a character, waits."""

    def push(self, ids: Sequence[int]) -> str: ...
    def finish(self) -> str:
        """What still waits, made printable."""
        ...


class Tokenizer(Protocol):
    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None:
        """The id a new sequence starts from, if the model has one."""
        ...

    @property
    def eos_id(self) -> int | None: ...
    def encode(self, text: str) -> list[int]:
        """Raises `InvalidRequest` for text that the vocabulary cannot express."""
        ...

    def detokenizer(self) -> Detokenizer: ...


@dataclass(frozen=True, kw_only=True)
class ByteTokenizer:
    """UTF-8 bytes, 0 to 255. A zero byte marks the beginning and the end of a text."""

    kind: Literal["bytes"] = "bytes"

    @property
    def vocab_size(self) -> int:
        return 256

    @property
    def bos_id(self) -> int | None:
        return 0

    @property
    def eos_id(self) -> int | None:
        return 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenizer(self) -> Detokenizer:
        return _Utf8()


class _Utf8:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Sequence[int]) -> str:
        return self._decoder.decode(bytes(ids))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


@dataclass(frozen=True, kw_only=True)
class DNATokenizer:
    """A, C, G, T and N, in either case, as 0 to 4."""

    kind: Literal["dna"] = "dna"

    ALPHABET = "ACGTN"

    @property
    def vocab_size(self) -> int:
        return len(self.ALPHABET)

    @property
    def bos_id(self) -> int | None:
        return None

    @property
    def eos_id(self) -> int | None:
        return None

    def encode(self, text: str) -> list[int]:
        ids = text.encode("ascii", errors="replace").translate(_DNA_IDS)
        if (at := ids.find(_FOREIGN)) >= 0:
            raise InvalidRequest(f"letter {text[at]!r} at position {at} is not one of {', '.join(self.ALPHABET)}")
        return list(ids)

    def detokenizer(self) -> Detokenizer:
        return _Letters(self.ALPHABET)


_FOREIGN = 255
_DNA_IDS = bytes("ACGTN".find(chr(code).upper()) % 256 for code in range(256))  # find's -1 becomes _FOREIGN


class _Letters:
    def __init__(self, alphabet: str) -> None:
        self._alphabet = alphabet

    def push(self, ids: Sequence[int]) -> str:
        return "".join(self._alphabet[i] for i in ids)

    def finish(self) -> str:
        return ""


TokenizerConfig = Annotated[ByteTokenizer | DNATokenizer, Field(discriminator="kind")]


def from_json(data: Any) -> ByteTokenizer | DNATokenizer:
    """The tokenizer that an artifact describes. Raises `ArtifactError`."""
    try:
        return TypeAdapter(TokenizerConfig).validate_python(data)
    except ValidationError as error:
        raise ArtifactError(f"the tokenizer's description is not one we know: {error.errors()[0]['msg']}") from error
