"""What it costs to fork and to rewind a session, at several positions, against reading its tokens again.

    python benchmarks/fork.py --target 127.0.0.1:50051

wants a server with a model that generates.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from ssp_client import Client

REPEATS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--target", default="127.0.0.1:50051")
    parser.add_argument("--model", default="")
    parser.add_argument("--positions", type=int, nargs="+", default=[100, 1_000, 10_000])
    options = parser.parse_args()
    print(f"{'position':>8}  {'fork':>9}  {'rewind':>9}  {'fork, first token':>18}  {'read again, first token':>24}")
    with Client(options.target) as client:
        for position in options.positions:
            row = measured(client, options.model, "a" * (position - 1))
            print(f"{position:>8}  {row[0]:>6.2f} ms  {row[1]:>6.2f} ms  {row[2]:>15.2f} ms  {row[3]:>21.2f} ms")


def measured(client: Client, model: str, text: str) -> tuple[float, float, float, float]:
    """Medians, in milliseconds."""
    with client.open_session(model) as session:
        session.append(text)
        session.checkpoint("here")
        fork = median(lambda: session.fork().close(), REPEATS)
        close = median(lambda: client.open_session(model).close(), REPEATS) / 2  # of the two calls, one
        rewind = median(lambda: session.rewind("here"), REPEATS)

        def forked_token() -> None:
            with session.fork() as forked:
                forked.complete(max_tokens=1, ignore_eos=True)

        def read_again() -> None:
            client.complete(text, model=model, max_tokens=1, ignore_eos=True)

        return fork - close, rewind, median(forked_token, REPEATS), median(read_again, 5)


def median(action: Callable[[], object], repeats: int) -> float:
    def once() -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    return 1000 * statistics.median(once() for _ in range(repeats))


if __name__ == "__main__":
    main()
