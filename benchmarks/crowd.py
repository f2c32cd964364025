"""Is a session's output the same alone and among 64? Greedy, through a running server (`make serve`).

python -m benchmarks.crowd --sessions 64 --max-tokens 128
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import tyro

from ssp_client import Client


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = "python-bytes"
    sessions: int = 64
    max_tokens: int = 128


def prompt(number: int) -> str:
    verbs = ("open", "close", "read", "write", "parse", "send", "find", "join")
    return f"def {verbs[number % len(verbs)]}_{number}(self"


def generate(client: Client, flags: Flags, number: int) -> tuple[int, ...]:
    with client.open_session(flags.model) as session:
        return session.complete(prompt(number), max_tokens=flags.max_tokens, temperature=0, ignore_eos=True).token_ids


def main(flags: Flags) -> None:
    with Client() as client, ThreadPoolExecutor(flags.sessions) as pool:
        started = time.monotonic()
        crowd = list(pool.map(lambda number: generate(client, flags, number), range(flags.sessions)))
        together = time.monotonic() - started
        started = time.monotonic()
        alone = [generate(client, flags, number) for number in range(flags.sessions)]
        apart = time.monotonic() - started
    differing = [number for number in range(flags.sessions) if crowd[number] != alone[number]]
    tokens = sum(map(len, alone))
    for number in differing:
        at = next(i for i, pair in enumerate(zip(crowd[number], alone[number], strict=True)) if pair[0] != pair[1])
        print(f"session {number} differs from token {at} on")
    print(f"{flags.sessions - len(differing)} of {flags.sessions} sessions equal ({tokens} tokens)")
    print(f"together {tokens / together:.0f} tokens/s, one after the other {tokens / apart:.0f} tokens/s")


if __name__ == "__main__":
    main(tyro.cli(Flags))
