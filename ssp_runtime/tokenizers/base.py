"""What a tokenizer and its way back to text are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self


class Detokenizer(Protocol):
    """Turns ids into text as they come; what cannot be text yet, such as half a character, waits."""

    @property
    def waiting(self) -> list[int]:
        """The ids that are not all text yet; a new detokenizer that is given them stands where this one does."""
        ...

    def follow(self, ids: Sequence[int]) -> None:
        """Takes ids for what came before, whose text is not wanted: what begins a text may read otherwise than the
        same in its middle."""
        ...

    def push(self, ids: Sequence[int]) -> str: ...
    def finish(self) -> str:
        """What still waits, made printable."""
        ...


class Tokenizer(ABC):
    """Text to ids. It never changes, so that copies of what holds one share it."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    def bos_id(self) -> int | None:
        """The id a new sequence starts from, if the model has one."""
        return None

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Any of these ends a text."""
        return ()

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Texts that `encode` takes for tokens which are no text themselves, and their ids."""
        return {}

    @property
    def mask_id(self) -> int | None:
        """The id that stands for a token to be filled in, if the vocabulary has one; `encode` finds it in a text."""
        return None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Raises `InvalidRequest` for text that the vocabulary cannot express."""

    @abstractmethod
    def detokenizer(self) -> Detokenizer: ...

    def decode(self, ids: Sequence[int]) -> str:
        """A whole text."""
        detokenizer = self.detokenizer()
        return detokenizer.push(ids) + detokenizer.finish()

    def to_json(self) -> dict[str, Any]:
        """What `tokenizers.from_json` makes it of again, together with its files."""
        return {"kind": self.kind}

    @property
    def files(self) -> Mapping[str, bytes]:
        """What is stored beside a model's `config.json`, by name."""
        return {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.kind)

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self


def ends_to_json(ids: tuple[int, ...]) -> int | list[int] | None:
    """A list of several only: so artifacts of one end stay what they are."""
    return list(ids) if len(ids) > 1 else next(iter(ids), None)


def ends_from_json(written: int | list[int] | None) -> tuple[int, ...]:
    if written is None:
        return ()
    return tuple(written) if isinstance(written, list) else (written,)
