"""The folder of a disk store: files that are there whole or not at all, and the lock that keeps other servers out."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssp_runtime.errors import StoreFull, StoreUnavailable

_TEMPORARY = ".tmp"

log = logging.getLogger(__name__)


class Folder:
    """`snapshots/` is what is kept, `quarantine/` what was found damaged; nobody else may read either.

    Every method may raise `StoreUnavailable`, those that write `StoreFull`.
    """

    def __init__(self, path: Path) -> None:
        self._kept, self._quarantine = path / "snapshots", path / "quarantine"
        with _told():
            for folder in (path, self._kept, self._quarantine):
                _make_folder(folder)
            lock = _locked(path / "lock")
            self._descriptor = os.open(self._kept, os.O_RDONLY | os.O_DIRECTORY)
            self._open = [self._descriptor, lock]
            self._sweep()
        self.sync()

    def sizes(self) -> dict[str, int]:
        """Of all files kept, by name."""
        with _told(), os.scandir(self._kept) as files:
            return {file.name: file.stat().st_size for file in files}

    def quarantined_bytes(self) -> int:
        with _told(), os.scandir(self._quarantine) as files:
            return sum(file.stat().st_size for file in files)

    def put(self, name: str, data: bytes) -> None:
        """A new file, whole or not there; it stays after a power cut when `sync` returned too."""
        temporary = self._kept / (name + _TEMPORARY)
        with _told():
            try:
                with open(temporary, "wb", opener=_open_private) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self._kept / name)
            except OSError:
                with suppress(OSError):  # it is swept at the next start
                    temporary.unlink()
                raise

    def sync(self) -> None:
        """Makes durable what files there are."""
        with _told():
            os.fsync(self._descriptor)

    def read(self, name: str) -> bytes | None:
        """None if it is gone, or the disk cannot read it any more."""
        with _told():
            try:
                return (self._kept / name).read_bytes()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EIO):
                    return None
                raise

    def rename(self, name: str, to: str) -> None:
        with _told():
            (self._kept / name).replace(self._kept / to)

    def remove(self, name: str) -> None:
        with _told():
            (self._kept / name).unlink(missing_ok=True)

    def put_aside(self, name: str) -> None:
        """Into quarantine, for somebody to look at."""
        aside = self._quarantine / f"{time.time_ns()}.{name}"
        log.warning("damaged snapshot: %s is put aside as %s", self._kept / name, aside)
        with _told(), suppress(FileNotFoundError):
            (self._kept / name).replace(aside)

    def close(self) -> None:
        """Lets other servers in."""
        while self._open:
            os.close(self._open.pop(0))

    def _sweep(self) -> None:
        """Removes what a killed process was writing."""
        for file in self._kept.glob(f"*{_TEMPORARY}"):
            file.unlink()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("the disk of the session store is full; close sessions", retry_after=5) from error
        raise StoreUnavailable(f"the folder of the session store cannot be used: {error.strerror}") from error


def _make_folder(path: Path) -> None:
    """A missing folder is made so that it stays after a power cut."""
    if path.is_dir():
        return
    path.mkdir(mode=0o700, parents=True)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _locked(path: Path) -> int:
    """The descriptor of a file that nobody else can lock until it is closed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise
        message = f"another server keeps its sessions in {path.parent}; give each server a folder of its own"
        raise StoreUnavailable(message) from error
    return descriptor


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
