"""How long a session takes to go on from each tier, against reading its tokens again; and what snapshots cost.

    python -m benchmarks.resume --redis redis://127.0.0.1:6379/0

Starts a server for each tier: with room on the device, with few slots, and with a store and room in memory for few.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.serving import serving
from ssp_client import Client, Tier
from ssp_client.session import Session


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Path = Path("ssp_runtime/shipped/python-bytes")
    position: int = 10_000
    """Tokens that the session has read."""
    repeats: int = 20
    sessions: int = 200
    """That are saved to measure snapshots."""
    redis: str | None = None
    """URL of a Redis; without it that tier is left out."""


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stores = {"disk": folder} | ({"redis": flags.redis} if flags.redis else {})
        with served(flags) as client:
            again = measured(lambda: read(client, flags), flags.repeats)
            print(f"reading {flags.position:,} tokens again: {again:.2f} ms to the first token")
            report_resume("device", client, Tier.DEVICE, flags, again)
        with served(flags, "--slots", "2") as client:
            report_resume("host", client, Tier.HOST, flags, again)
            few = str(4 * state_bytes(client))
        for name, url in stores.items():
            with served(flags, "--slots", "2", "--max-state-bytes", few, "--store", url) as client:
                report_resume(name, client, Tier.STORE, flags, again)
            with served(flags, "--commit", "request", "--store", url) as client:
                report_snapshots(name, client, flags)
        files = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
        print(f"disk: {max(files):,} bytes in the largest file")


@contextmanager
def served(flags: Flags, *options: str) -> Iterator[Client]:
    """A client of a server of its own."""
    with serving(flags.model, "--max-prefix-bytes", 0, *options) as server, Client(server.target) as client:
        yield client


def report_resume(name: str, client: Client, tier: Tier, flags: Flags, again: float) -> None:
    """From where it lies to the first token."""
    others = [client.open_session() for _ in range(0 if tier is Tier.DEVICE else 8)]
    with client.open_session() as session:
        session.append("a" * (flags.position - 1))
        seconds = measured(session_step(session), flags.repeats, before=lambda: push_out(session, tier, others))
    for other in others:
        other.close()
    print(f"from {name}: {seconds:.2f} ms to the first token, {again / seconds:.0f} times as fast")


def push_out(session: Session, tier: Tier, others: list[Session]) -> None:
    """Uses others until the session lies in a tier."""
    for other in others * 10:
        if session.info().tier is tier:
            return
        other.append("a")
    assert session.info().tier is tier, f"the session does not go to {tier}"


def session_step(session: Session) -> Callable[[], object]:
    return lambda: session.complete(max_tokens=1, ignore_eos=True)


def read(client: Client, flags: Flags) -> None:
    client.complete("a" * (flags.position - 1), max_tokens=1, ignore_eos=True)


def report_snapshots(name: str, client: Client, flags: Flags) -> None:
    """Sessions that were changed and are saved, one after the other and eight at a time."""
    sessions = [client.open_session() for _ in range(flags.sessions)]
    for threads in (1, 8):
        for session in sessions:
            session.append("a")
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda session: session.commit(), sessions))
        rate = len(sessions) / (time.perf_counter() - started)
        size = rate * state_bytes(client) / 2**20
        print(f"to {name}, {threads} at a time: {rate:.0f} snapshots/s, {size:.0f} MiB/s of states")
    for session in sessions[1:]:
        session.close()


def state_bytes(client: Client) -> int:
    """Of one session, in memory."""
    (model,) = client.models()
    return model.state_bytes_per_session


def measured(action: Callable[[], object], repeats: int, before: Callable[[], object] = lambda: None) -> float:
    """The median, in milliseconds; `before` does not count."""

    def once() -> float:
        before()
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    return 1000 * statistics.median(once() for _ in range(repeats))


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
