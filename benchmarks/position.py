"""Does a step cost more at token 100,000 than at token 1,000? Steps two sessions in turn and compares the pairs.

python -m benchmarks.position --model ssp_runtime/shipped/python-bytes
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from ssp_runtime.formats.artifact import load
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.state import State


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Path = Path("ssp_runtime/shipped/python-bytes")
    near: int = 1_000
    far: int = 100_000
    pairs: int = 2_000
    runs: int = 3
    threads: int = 1


@torch.inference_mode()
def at_position(model: LanguageModel, position: int) -> State:
    """A state that has folded that many random tokens."""
    generator, state = torch.Generator().manual_seed(0), model.initial_state(1)
    vocab_size = model.lm_head.out_features
    while position:
        count = min(position, 2_048)
        state = model.fold(torch.randint(vocab_size, (1, count), generator=generator), state)
        position -= count
    return state


@torch.inference_mode()
def median_ratio(model: LanguageModel, near: State, far: State, pairs: int) -> tuple[float, float]:
    """Median of far / near over the pairs, and the median step in seconds. The one that goes first alternates."""
    token = torch.tensor([10])
    ratios: list[float] = []
    steps: list[float] = []
    for pair in range(pairs):
        seconds = {}
        for name, state in (("near", near), ("far", far))[:: 1 if pair % 2 else -1]:
            started = time.perf_counter()
            model.step(token, state, out=state)
            seconds[name] = time.perf_counter() - started
        ratios.append(seconds["far"] / seconds["near"])
        steps += seconds.values()
    return statistics.median(ratios), statistics.median(steps)


def main(flags: Flags) -> None:
    torch.set_num_threads(flags.threads)
    model = load(flags.model).language_model
    near, far = at_position(model, flags.near), at_position(model, flags.far)
    for run in range(flags.runs):
        ratio, step = median_ratio(model, near, far, flags.pairs)
        print(f"run {run + 1}: position {flags.far:,} / {flags.near:,}: {ratio:.4f}, median step {step * 1e3:.3f} ms")


if __name__ == "__main__":
    main(tyro.cli(Flags))
