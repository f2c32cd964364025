"""The names of the files of a disk store: a snapshot's says of which key and version it is, and until when."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

KEY_SUFFIX = ".key"
NEVER = 0
_NAME = re.compile(r"([0-9a-f]{40})\.([0-9]+)\.([0-9]+)\.safetensors")


@dataclass(frozen=True)
class VersionFile:
    """`stem` stands for its key; `expires` is in milliseconds since 1970."""

    stem: str
    version: int
    expires: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.stem}.{self.version}.{self.expires}.safetensors"

    @property
    def has_expired(self) -> bool:
        return self.expires != NEVER and self.expires <= time.time() * 1000


Files = tuple[VersionFile, ...]  # of one key, the newest last


def stem_of(key: str) -> str:
    """What the names of a key's files begin with."""
    return blake2b(key.encode(), digest_size=20).hexdigest()


def key_name(stem: str) -> str:
    return stem + KEY_SUFFIX


def expiry(ttl: float | None) -> int:
    """When what is saved now with this `ttl` expires."""
    return NEVER if ttl is None else math.ceil((time.time() + ttl) * 1000)


def by_stem(sizes: Mapping[str, int]) -> dict[str, Files]:
    """The stored versions that these files are, by the stem of their key."""
    found = [(match, size) for name, size in sizes.items() if (match := _NAME.fullmatch(name))]
    files = [VersionFile(match[1], int(match[2]), int(match[3]), size) for match, size in found]
    grouped: dict[str, Files] = {}
    for file in sorted(files, key=lambda file: file.version):
        grouped[file.stem] = (*grouped.get(file.stem, ()), file)
    return grouped
