"""A store in memory for several keepers, which does what a test tells it to."""

import asyncio
import threading
from collections.abc import Callable, Iterator

from ssp_runtime.errors import SSPError, StoreUnavailable
from ssp_runtime.sessions.stores import Store, Stored
from ssp_runtime.sessions.stores.base import refuse
from tests.ssp_runtime.engine.engine_harness import PATIENCE


class SharedStore(Store):
    """`fault` tells what is wrong with saving a key; while the `gate` is closed saves wait before it."""

    is_shared = True

    def __init__(self) -> None:
        self.kept: dict[str, Stored] = {}
        self.is_away = self.loses_answers = False
        self.fault: Callable[[str], SSPError | None] = lambda _: None
        self.deletes = True
        self.gate, self.waiting = threading.Event(), threading.Event()  # `waiting`: a save is at the gate
        self.gate.set()
        self._lock = threading.Lock()
        self._unanswered: set[str] = set()

    def save(self, key: str, data: bytes, version: int, *, expected: int | None, ttl: float | None = None) -> None:  # noqa: ARG002
        if not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(PATIENCE)
        self._answer()
        fault = self.fault(key)
        if fault is not None:
            raise fault
        with self._lock:
            there = self.kept[key].version if key in self.kept else None
            if there != expected and key not in self._unanswered:
                refuse(there, expected)
            assert there is None or version > there, "versions grow"
            self.kept[key] = Stored(version, data)
            self._unanswered.discard(key)
            if self.loses_answers:
                self._unanswered.add(key)
                raise StoreUnavailable("the answer was lost")

    def load(self, key: str) -> Stored | None:
        self._answer()
        return self.kept.get(key)

    def version(self, key: str) -> int | None:
        stored = self.load(key)
        return None if stored is None else stored.version

    def delete(self, key: str) -> None:
        self._answer()
        if not self.deletes:
            raise StoreUnavailable("nothing can be deleted now")
        self.kept.pop(key, None)

    def keys(self) -> Iterator[str]:
        return iter(list(self.kept))

    @property
    def used_bytes(self) -> int:
        return sum(len(stored.data) for stored in self.kept.values())

    def close(self) -> None:
        """It stays for the next."""

    def refuse_sessions(self, error: Callable[[], SSPError]) -> None:
        """Sessions cannot be saved any more, but checkpoints can."""
        self.fault = lambda key: None if "/" in key else error()

    async def reached(self) -> None:
        """A save waits at the gate."""
        assert await asyncio.to_thread(self.waiting.wait, PATIENCE)

    def _answer(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the store does not answer")


class OwnStore(SharedStore):
    """As one that a single server has to itself."""

    is_shared = False
