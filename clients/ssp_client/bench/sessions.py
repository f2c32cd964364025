"""What sessions cost: bytes of state each, how many fit, the server's memory."""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from ssp_client.client import Client
from ssp_client.errors import ResourceExhausted, SSPError
from ssp_client.session import Session
from ssp_client.types import SequenceLike

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class SessionCost:
    """What `opened` sessions came to; times in seconds, memory None where the server's metrics do not answer."""

    asked: int
    opened: int
    open_seconds: float
    state_bytes: int
    memory_before: int | None
    memory_after: int | None
    # Why no more could be opened, if fewer than asked.
    refusal: str

    @property
    def sessions_per_gib(self) -> float:
        """States that fit into one GiB."""
        return GIB / self.state_bytes if self.state_bytes else 0.0

    @property
    def memory_per_session(self) -> float | None:
        """Growth of the server's resident memory per session, in bytes."""
        if self.memory_before is None or self.memory_after is None or not self.opened:
            return None
        return (self.memory_after - self.memory_before) / self.opened


def measure(
    client: Client, *, model: str, count: int, prompt: SequenceLike, metrics_url: str, done: Callable[[], object]
) -> SessionCost:
    """Opens `count` sessions, folds `prompt` into each, looks at the server, and closes them again."""
    opened: list[Session] = []
    before, start = resident_memory(metrics_url), time.perf_counter()
    try:
        refusal = ""
        while len(opened) < count and not refusal:
            refusal = _open_one(client, model, prompt, opened)
            done()
        seconds = time.perf_counter() - start
        return SessionCost(
            asked=count,
            opened=len(opened),
            open_seconds=seconds,
            state_bytes=opened[0].info().state_bytes if opened else 0,
            memory_before=before,
            memory_after=resident_memory(metrics_url),
            refusal=refusal,
        )
    finally:
        for session in opened:
            with contextlib.suppress(SSPError):
                session.close()


def _open_one(client: Client, model: str, prompt: SequenceLike, opened: list[Session]) -> str:
    try:
        opened.append(client.open_session(model))
        opened[-1].append(prompt)
    except ResourceExhausted as error:
        return str(error)
    return ""


def resident_memory(metrics_url: str) -> int | None:
    """`process_resident_memory_bytes` of a Prometheus page; None if the page or the line is not there."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=5) as page:
            return find_metric(page.read().decode(), "process_resident_memory_bytes")
    except (urllib.error.URLError, OSError):
        return None


def find_metric(page: str, name: str) -> int | None:
    """The value of an unlabelled metric in Prometheus' text format."""
    for line in page.splitlines():
        if line.startswith(f"{name} "):
            return int(float(line.split()[1]))
    return None
