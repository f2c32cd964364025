"""Snapshots that anybody could have made: whatever they hold, their checksum is right."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from torch import Tensor

from ssp_runtime.sessions import snapshot_file

_CHECKSUM_DIGITS = 64


def opened(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return snapshot_file.unpack(data)


def sealed(header: Any, tensors: Mapping[str, Tensor]) -> bytes:
    """As `snapshot_file.pack`, of any header that JSON or its NaN can say."""
    empty = snapshot_file.pack({}, tensors)
    end = 8 + int.from_bytes(empty[:8], "little")
    text = json.loads(empty[8:end])
    text["__metadata__"] |= {"header": json.dumps(header), "checksum": "0" * _CHECKSUM_DIGITS}
    said = json.dumps(text, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    whole = len(said).to_bytes(8, "little") + said + empty[end:]
    return whole.replace(b"0" * _CHECKSUM_DIGITS, sha256(whole).hexdigest().encode(), 1)
