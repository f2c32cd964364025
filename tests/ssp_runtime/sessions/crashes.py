"""Servers that are killed while they save. They are forked from a process that has imported everything."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ssp_runtime.sessions.stores import Store
from ssp_runtime.sessions.stores.disk import DiskStore
from tests.ssp_runtime.sessions.snapshots import snapshot

ROOM = 1 << 20
_SYSCALLS = ("open", "fsync", "replace", "unlink")

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["pytest", __name__])  # what every process would import by itself


class Save(NamedTuple):
    key: str
    number: int
    version: int
    expected: int | None

    def run(self, store: Store) -> None:
        store.save(self.key, snapshot(self.number), self.version, expected=self.expected)

    def apply(self, numbers: dict[str, int]) -> dict[str, int]:
        return {**numbers, self.key: self.number}


class Delete(NamedTuple):
    key: str

    def run(self, store: Store) -> None:
        store.delete(self.key)

    def apply(self, numbers: dict[str, int]) -> dict[str, int]:
        return {key: number for key, number in numbers.items() if key != self.key}


SCRIPT: tuple[Save | Delete, ...] = (
    Save("a", 1, 0, None),
    Save("a", 2, 1, 0),
    Save("b", 3, 0, None),
    Save("a", 4, 2, 1),
    Delete("a"),
    Save("a", 5, 0, None),
    Save("b", 6, 1, 0),
)


@contextlib.contextmanager
def process(work: Callable[..., None], *arguments: Any) -> Iterator[tuple[multiprocessing.Process, Connection]]:
    """Runs in another process, which sends what it has done."""
    receiver, sender = context.Pipe(duplex=False)
    made = context.Process(target=work, args=(*arguments, sender))
    made.start()
    sender.close()
    try:
        yield made, receiver  # type: ignore[misc]  # a ForkServerProcess is one in all but its type
    finally:
        made.kill()
        made.join()
        made.close()
        receiver.close()


def run_script(folder: Path, crash_at: int, sender: Connection) -> None:
    """Dies right before that call of the operating system, of those that change files."""
    store = DiskStore(folder, ROOM)
    _crash_at(crash_at)
    for done, operation in enumerate(SCRIPT):
        operation.run(store)
        sender.send(done + 1)
    sender.send("the end")


def save_for_ever(folder: Path, sender: Connection) -> None:
    """Saves version after version, and sends each once it is saved."""
    store = DiskStore(folder, ROOM)
    version = store.version("a")
    while True:
        new = 0 if version is None else version + 1
        store.save("a", snapshot(new), new, expected=version)
        sender.send(new)
        version = new


def _crash_at(crash_at: int) -> None:
    """Of files that were not made durable before, half is lost."""
    calls, opened, written = count(), dict[int, str](), set[str]()

    def dying(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: Any, *arguments: Any, **options: Any) -> Any:
            if next(calls) == crash_at:
                for path in filter(os.path.exists, written):
                    os.truncate(path, Path(path).stat().st_size // 2)
                os._exit(1)
            result = call(file, *arguments, **options)
            if name == "open" and arguments[0] & os.O_WRONLY:
                opened[result] = str(file)
                written.add(str(file))
            elif name == "fsync":
                written.discard(opened.get(file, ""))
            elif name == "replace" and str(file) in written:
                written.add(str(arguments[0]))
            return result

        return wrapped

    for name in _SYSCALLS:
        setattr(os, name, dying(name, getattr(os, name)))
