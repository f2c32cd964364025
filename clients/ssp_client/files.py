"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

# Where a file is, or the file itself, opened in binary mode.
FileLike: TypeAlias = str | os.PathLike[str] | BinaryIO


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the name `path` only if the block ends well."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(handle)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def written(file: FileLike) -> Iterator[BinaryIO]:
    """The file to write to; one that was given by its path appears whole or not at all."""
    if isinstance(file, str | os.PathLike):
        with whole_file(Path(file)) as opened:
            yield opened
    else:
        yield file


def contents(file: FileLike) -> bytes:
    """All that there is to read."""
    return Path(file).read_bytes() if isinstance(file, str | os.PathLike) else file.read()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
