"""Snapshots in a folder of a local disk."""

import heapq
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ssp_runtime.errors import SnapshotCorrupt, SSPError, StoreFull, StoreUnavailable
from ssp_runtime.sessions import snapshot_file
from ssp_runtime.sessions.stores.base import Store, Stored, refuse
from ssp_runtime.sessions.stores.folder import Folder
from ssp_runtime.sessions.stores.version_file import (
    KEY_SUFFIX,
    NEVER,
    Files,
    VersionFile,
    by_stem,
    expiry,
    key_name,
    stem_of,
)

_VERSIONS = 2  # kept of each key: the newest, and the one before in case that one is damaged
_NUM_LOCKS = 64

log = logging.getLogger(__name__)


class DiskStore(Store):
    """What a killed server was saving is there whole or not at all. Of a damaged version, the one before takes the
    place; damaged files are put aside and count until somebody removes them."""

    is_shared = False

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Makes the folder if need be.

        Raises:
            StoreUnavailable: another server has locked it, or it cannot be used.
        """
        self._max_bytes = max_bytes
        self._key_locks = [threading.Lock() for _ in range(_NUM_LOCKS)]  # a key's files change under its lock only
        self._files: dict[str, Files] = {}
        self._lock = threading.Lock()  # for what follows; never held while the disk is at work
        self._expiring: list[tuple[int, str]] = []  # a heap; a key that was saved again is in it more than once
        self._used_bytes = 0
        self._folder = Folder(folder)
        self._read_folder()

    def save(self, key: str, data: bytes, version: int, *, expected: int | None, ttl: float | None = None) -> None:
        assert expected is None or version > expected, "versions grow"
        self._remove_expired()
        file = VersionFile(stem_of(key), version, expiry(ttl), len(data))
        with self._key_lock(key):
            files = self._current(key)
            stored = files[-1].version if files else None
            if stored != expected:
                refuse(stored, expected)
            if not self._fits(file.size) and self._fits(file.size - sum(old.size for old in files[:-1])):
                files = self._keep(key, 1)
            self._write({file.name: data} if files else {key_name(file.stem): key.encode(), file.name: data})
            self._set(key, (*files, file))
            self._keep_few(key)

    def load(self, key: str) -> Stored | None:
        with self._key_lock(key):
            files = self._current(key)
            if not files:
                return None
            while files:
                data = self._folder.read(files[-1].name)
                if data is not None and _is_intact(data):
                    return Stored(files[-1].version, data)
                files = self._fall_back(key)
        raise SnapshotCorrupt("every stored version of the session is damaged; open another session")

    def version(self, key: str) -> int | None:
        files = self._files.get(key)
        return files[-1].version if files and not files[-1].has_expired else None

    def delete(self, key: str) -> None:
        with self._key_lock(key):
            if key in self._files:
                self._remove_key(key)
                self._folder.sync()

    def keys(self) -> Iterator[str]:
        self._remove_expired()
        return iter(list(self._files))

    @property
    def used_bytes(self) -> int:
        """Of all files, those put aside included."""
        self._remove_expired()
        return self._used_bytes

    def close(self) -> None:
        self._folder.close()

    def _key_lock(self, key: str) -> threading.Lock:
        return self._key_locks[hash(key) % _NUM_LOCKS]

    def _read_folder(self) -> None:
        """Finds what lies there. A crash of the machine may leave keys without versions, or versions without key."""
        sizes = self._folder.sizes()
        self._used_bytes = sum(sizes.values()) + self._folder.quarantined_bytes()
        versions = by_stem(sizes)
        for name in [name for name in sizes if name.endswith(KEY_SUFFIX)]:
            key = (self._folder.read(name) or b"").decode(errors="replace")
            stem = stem_of(key)
            if name == key_name(stem) and stem in versions:
                self._set(key, versions.pop(stem))
                self._keep_few(key)
            elif name.removesuffix(KEY_SUFFIX) in versions:  # its text is damaged
                self._folder.put_aside(name)
            else:
                self._remove(name, sizes[name])
        for file in (file for files in versions.values() for file in files):
            self._folder.put_aside(file.name)

    def _remove_expired(self) -> None:
        while (key := self._next_expired()) is not None:
            with self._key_lock(key):
                self._current(key)

    def _next_expired(self) -> str | None:
        with self._lock:
            if self._expiring and self._expiring[0][0] <= time.time() * 1000:
                return heapq.heappop(self._expiring)[1]
        return None

    # With the key's lock held

    def _current(self, key: str) -> Files:
        """Its versions. They are removed if they have expired."""
        files = self._files.get(key, ())
        if files and files[-1].has_expired:
            self._remove_key(key)
            return ()
        return files

    def _set(self, key: str, files: Files) -> None:
        self._files[key] = files
        if files[-1].expires != NEVER:
            with self._lock:
                heapq.heappush(self._expiring, (files[-1].expires, key))
                if len(self._expiring) > 2 * len(self._files) + 100:
                    current = [(files[-1].expires, key) for key, files in list(self._files.items()) if files]
                    self._expiring = sorted(entry for entry in current if entry[0] != NEVER)

    def _write(self, contents: dict[str, bytes]) -> None:
        """All of these files durably, or none."""
        size = sum(map(len, contents.values()))
        self._take_room(size)
        try:
            for name, content in contents.items():
                self._folder.put(name, content)
            self._folder.sync()
        except SSPError:
            for name in contents:
                self._folder.remove(name)
            self._give_room(size)
            raise

    def _fall_back(self, key: str) -> Files:
        """The versions before the newest, which is put aside and leaves them its time to expire."""
        *before, damaged = self._files[key]
        self._folder.put_aside(damaged.name)
        if not before:
            self._folder.put_aside(key_name(damaged.stem))
            del self._files[key]
            return ()
        newest = replace(before[-1], expires=damaged.expires)
        self._folder.rename(before[-1].name, newest.name)
        files = self._files[key] = (*before[:-1], newest)
        return files

    def _keep(self, key: str, count: int) -> Files:
        """Removes older versions first: a newer one that is gone never uncovers them."""
        files = self._files[key]
        while len(files) > count:
            self._remove(files[0].name, files[0].size)
            files = self._files[key] = files[1:]
        return files

    def _keep_few(self, key: str) -> None:
        """What was saved is safe, whatever comes of the old versions."""
        try:
            self._keep(key, _VERSIONS)
        except StoreUnavailable as error:
            log.warning("an old snapshot could not be removed: %s", error)

    def _remove_key(self, key: str) -> None:
        self._keep(key, 0)
        self._remove(key_name(stem_of(key)), len(key.encode()))
        del self._files[key]

    def _remove(self, name: str, size: int) -> None:
        self._folder.remove(name)
        self._give_room(size)

    def _fits(self, size: int) -> bool:
        return self._used_bytes + size <= self._max_bytes

    def _take_room(self, size: int) -> None:
        with self._lock:
            if not self._fits(size):
                holds = f"the session store holds {self._used_bytes} of {self._max_bytes} bytes"
                raise StoreFull(f"{holds}, too many for {size} more; close sessions", retry_after=5)
            self._used_bytes += size

    def _give_room(self, size: int) -> None:
        with self._lock:
            self._used_bytes -= size


def _is_intact(data: bytes) -> bool:
    try:
        snapshot_file.verify(data)
    except SnapshotCorrupt:
        return False
    return True
