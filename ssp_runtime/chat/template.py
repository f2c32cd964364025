"""A chat template, as a model folder keeps it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ssp_runtime.errors import ArtifactError

TEMPLATE_FILE = "chat_template.jinja"
MAX_BYTES = 256 << 10


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """Source in Jinja, and the texts of special tokens that it can name, such as `bos_token`."""

    source: str
    tokens: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raises `ArtifactError`."""
        try:
            texts = [text.encode() for text in (self.source, *self.tokens.values())]
        except UnicodeEncodeError as error:
            raise ArtifactError(f"the chat template is no text: {error}") from error
        size = len(texts[0])
        if size > MAX_BYTES:
            raise ArtifactError(f"the chat template has {size} bytes; {MAX_BYTES} are the most that is taken")

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes it of again, together with its file."""
        return {"sha256": hashlib.sha256(self._contents).hexdigest(), "tokens": dict(self.tokens)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path) -> Self:
        """The template that an artifact describes, whose file is in the folder. Raises `ArtifactError`."""
        try:
            made = cls(source=read_source(folder / TEMPLATE_FILE), tokens=dict(data["tokens"]))
        except ArtifactError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"the chat template's description is not that of one: {error}") from error
        if made.to_json() != data:
            raise ArtifactError(f"the chat template in {folder} was changed after it was written")
        return made

    @property
    def files(self) -> Mapping[str, bytes]:
        """What is stored beside a model's `config.json`, by name."""
        return {TEMPLATE_FILE: self._contents}

    @property
    def _contents(self) -> bytes:
        return self.source.encode()


def read_source(path: Path) -> str:
    """Raises `ArtifactError`."""
    try:
        return path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the chat template {path} cannot be read: {error}") from error
