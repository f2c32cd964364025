"""What every session store does: it keeps the newest version of snapshots, by key, past the end of the process."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, NoReturn, Self

from ssp_runtime.errors import SessionMoved


@dataclass(frozen=True)
class Stored:
    version: int
    data: bytes


class Store(ABC):
    """Safe to use from any thread. Keys are the caller's; the data are the bytes of `snapshot_file.pack`.

    Every method but `close` may raise `StoreUnavailable`; ask again later. After a `save` that did, the store holds the
    version from before or the new one, and the same `save` may be repeated.
    """

    is_shared: ClassVar[bool]  # other servers may write to it as well

    @abstractmethod
    def save(self, key: str, data: bytes, version: int, *, expected: int | None, ttl: float | None = None) -> None:
        """Puts a version in the place of the `expected` one (None: there is none), which must be older; it is durable
        when this returns. It is absent, and its room free, `ttl` seconds later (None: never).

        Raises:
            SessionMoved: another version than the expected one is stored; nothing was done.
            StoreFull: no room; nothing was done.
        """

    @abstractmethod
    def load(self, key: str) -> Stored | None:
        """The newest version; None if there is none.

        Raises:
            SnapshotCorrupt: what is stored is damaged.
        """

    @abstractmethod
    def version(self, key: str) -> int | None:
        """The version that `load` would try first; reads no data."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Does nothing if there is none."""

    @abstractmethod
    def keys(self) -> Iterator[str]:
        """Each once, in any order. One that is saved or deleted meanwhile may be among them or not."""

    @property
    @abstractmethod
    def used_bytes(self) -> int: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refuse(stored: int | None, expected: int | None) -> NoReturn:
    """Raises `SessionMoved`, with what is stored instead of the expected version."""
    there, wanted = ("nothing" if version is None else f"version {version}" for version in (stored, expected))
    raise SessionMoved(f"the session moved: its store holds {there}, not {wanted}; ask the server that has it now")
