"""What one token or vector costs a client that waits for its answer: on a Step stream, and by an Append call.

    python benchmarks/step.py --target 127.0.0.1:50051 --model python-bytes

wants a server with a model that generates or predicts.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from ssp_client import Client, InputKind, ModelInfo

WARM_UP = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--target", default="127.0.0.1:50051")
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=2_000)
    options = parser.parse_args()
    with Client(options.target) as client:
        one = one_input(client.model(options.model))
        with client.open_session(options.model) as session:
            report("Append", measured(lambda: session.append(one), options.count))
            for top in (0, 1) if isinstance(one, list) else (0,):
                with session.step(top_logprobs=top) as stream:
                    name = f"Step, top_logprobs={top}" if top else "Step"
                    report(name, measured(lambda: stream.send(one), options.count))


def one_input(model: ModelInfo) -> list[int] | np.ndarray:
    if model.input_kind is InputKind.VALUES:
        return np.zeros((1, model.d_input), np.float32)
    return [1]


def measured(action: Callable[[], object], count: int) -> np.ndarray:
    """Milliseconds of each."""
    for _ in range(WARM_UP):
        action()
    times = np.empty(count)
    for number in range(count):
        started = time.perf_counter()
        action()
        times[number] = time.perf_counter() - started
    return 1000 * times


def report(name: str, times: np.ndarray) -> None:
    median, p99 = np.percentile(times, (50, 99))
    print(f"{name:<22}  median {median:.3f} ms  p99 {p99:.3f} ms")


if __name__ == "__main__":
    main()
