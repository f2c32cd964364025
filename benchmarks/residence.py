"""What memory a server takes for sessions that lie in its store: far more of them than its budget holds. Linux only.

python -m benchmarks.residence --few 64 --many 2000

The budget holds `few` states. So many sessions are opened, then `many`, and each reads some tokens; then each of all is
asked to go on, in any order. The budget must hold throughout, and the process must not grow much.
"""

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.serving import Server, serving
from ssp_client import Client
from ssp_client.session import Session


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Path = Path("ssp_runtime/shipped/python-bytes")
    few: int = 64
    many: int = 2_000
    tokens: int = 100
    """That each session reads."""
    threads: int = 8


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder:
        budget = flags.few * state_bytes(flags.model)
        options = ["--store", folder, "--max-state-bytes", budget, "--slots", 16, "--max-prefix-bytes", 0]
        with serving(flags.model, *options) as server, Client(server.target) as client:
            sessions = opened(client, flags.few, flags)
            all_go_on(sessions, flags)
            before = report(server, len(sessions))
            sessions += opened(client, flags.many - flags.few, flags)
            all_go_on(sessions, flags)
            after = report(server, len(sessions))
        print(f"{after - before:+.1f} MiB; the budget holds {budget / 2**20:.1f} MiB of states")


def opened(client: Client, count: int, flags: Flags) -> list[Session]:
    def opened_one(_: int) -> Session:
        session = client.open_session()
        session.append("a" * flags.tokens)
        return session

    with ThreadPoolExecutor(flags.threads) as pool:
        return list(pool.map(opened_one, range(count)))


def all_go_on(sessions: list[Session], flags: Flags) -> None:
    """Each answers with the tokens that it was asked for."""

    def go_on(session: Session) -> int:
        return len(session.complete("b", max_tokens=4, ignore_eos=True).token_ids)

    with ThreadPoolExecutor(flags.threads) as pool:
        answers = list(pool.map(go_on, random.Random(0).sample(sessions, len(sessions))))
    assert answers == [4] * len(sessions)


def report(server: Server, count: int) -> float:
    """The server's resident memory in MiB."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    print(f"{count:>6} sessions: {kilobytes / 1024:.1f} MiB", flush=True)
    return kilobytes / 1024


def state_bytes(model: Path) -> int:
    with serving(model) as server, Client(server.target) as client:
        (info,) = client.models()
        return info.state_bytes_per_session


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
