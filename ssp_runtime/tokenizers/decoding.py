"""What the decoder in a `tokenizer.json` makes of one token: the bytes that it adds to the text."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ssp_runtime.errors import ArtifactError

Step = Callable[[str, bool], str | bytes]
"""What is left of a token, given whether it begins the text; bytes are final."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def decoding(decoder: Mapping[str, Any] | None) -> Callable[[str, bool], bytes]:
    """Raises `ArtifactError` for a decoder whose text depends on the tokens that follow, or that is not known."""
    parts = decoder["decoders"] if decoder and decoder["type"] == "Sequence" else [decoder]
    steps = [_step(part) for part in parts]

    def piece(token: str, begins: bool) -> bytes:
        rest: str | bytes = token
        for step in steps:
            if isinstance(rest, bytes):
                return rest
            rest = step(rest, begins)
        return rest if isinstance(rest, bytes) else rest.encode()

    return piece


def _step(part: Mapping[str, Any] | None) -> Step:  # noqa: PLR0911  # one for each kind
    match part:
        case None:
            return lambda token, begins: token if begins else f" {token}"
        case {"type": "ByteLevel"}:
            return lambda token, _: _from_byte_level(token)
        case {"type": "ByteFallback"}:
            return lambda token, _: bytes.fromhex(match[1]) if (match := _BYTE.fullmatch(token)) else token
        case {"type": "Fuse"}:
            return lambda token, _: token
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
            return lambda token, _: token.replace(old, new)
        case {"type": "Strip", "content": str(space), "start": 0 | 1 as count, "stop": 0}:
            return lambda token, begins: token.removeprefix(space * count) if begins else token
        case {"type": "Metaspace", "replacement": str(mark)}:
            drops = part.get("prepend_scheme", "always") != "never"
            return lambda token, begins: token.replace(mark, "" if begins and drops else " ")
    raise ArtifactError(f"tokenizer.json decodes in a way that cannot be streamed: {part!r}")


def _byte_level() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for 256 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level()


def _from_byte_level(token: str) -> bytes:
    """Tokens that were added to the vocabulary are plain text."""
    if all(letter in _BYTE_LEVEL for letter in token):
        return bytes(_BYTE_LEVEL[letter] for letter in token)
    return token.encode()
