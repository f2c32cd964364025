"""The byte corpus: the source files of the standard library of the interpreter at hand.

Which side of the split a file is on depends on its relative path alone: its SHA-256, read as an integer, modulo 20.
No file ever changes sides, whatever the version of Python, the order of the file system or the other files are.
"""

import hashlib
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SEPARATOR = b"\x00"
"""Ends every file: the end-of-text token of the byte tokenizer. Python source never contains it."""

HELDOUT_MODULUS = 20
"""One path in this many is held out."""

EXCLUDED_FOLDERS = frozenset({"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"})
EXCLUDED_PREFIXES = ("_sysconfigdata", "config-", "sitecustomize.", "usercustomize.")
"""Files and folders that the build or the administrator of this machine wrote: they are no part of a Python version."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Source files as bytes, each followed by one separator.

    Attributes:
        train: The training files, in order of their paths.
        heldout: The held-out files, in order of their paths.
        heldout_files: Relative path (posix form) and content, without the separator, of each held-out file.
        num_files: Number of files, training and held-out together.
        python_version: Version of the interpreter whose library this is, for example ``3.11.7``.
        checksum: SHA-256 (hex) over the sorted relative paths and the contents of all files.
    """

    train: bytes
    heldout: bytes
    heldout_files: tuple[tuple[str, bytes], ...]
    num_files: int
    python_version: str
    checksum: str


def load(root: Path | None = None) -> Corpus:
    """Reads the corpus.

    Args:
        root: Folder of the library; the running interpreter's where it is None.

    Raises:
        FileNotFoundError: The folder holds no source files to train on or none to hold out (a zipped or stripped
            library).
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    files = dict(_source_files(root))
    heldout = tuple((name, content) for name, content in files.items() if is_heldout(name))
    train = [content for name, content in files.items() if not is_heldout(name)]
    if not train or not heldout:
        raise FileNotFoundError(f"{root} holds too few Python source files: install the standard library as .py files")
    return Corpus(
        train=_join(train),
        heldout=_join([content for _, content in heldout]),
        heldout_files=heldout,
        num_files=len(files),
        python_version=platform.python_version(),
        checksum=_checksum(files),
    )


def is_heldout(name: str) -> bool:
    """Whether the file with this relative path (posix form) is held out."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % HELDOUT_MODULUS == 0


def _source_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yields relative path and content in order of the paths; of identical files the first, of empty files none."""
    seen = {b""}
    for name in sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py")):
        if _is_excluded(name):
            continue
        content = (root / name).read_bytes()
        if content not in seen and _is_utf8(content):
            assert SEPARATOR not in content, f"{name} contains the separator"
            seen.add(content)
            yield name, content


def _is_excluded(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not EXCLUDED_FOLDERS.isdisjoint(parts[:-1]) or any(part.startswith(EXCLUDED_PREFIXES) for part in parts)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _join(contents: list[bytes]) -> bytes:
    return b"".join(content + SEPARATOR for content in contents)


def _checksum(files: dict[str, bytes]) -> str:
    """SHA-256 of path, separator, content, separator of each file: neither part can contain the separator."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + SEPARATOR + content + SEPARATOR)
    return digest.hexdigest()
