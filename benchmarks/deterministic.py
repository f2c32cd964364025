"""What `--deterministic` costs: tokens a second by those of the default, in one process without gRPC.

python -m benchmarks.deterministic --streams 1 16 64

An engine of either mode is started over the same model, and they take turns; the medians of the turns' rates and of
their ratios are shown. Nothing else should run meanwhile.
"""

import queue
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from ssp_runtime.engine import deterministic
from ssp_runtime.engine.call import Call
from ssp_runtime.engine.config import EngineConfig
from ssp_runtime.engine.engine import Engine
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.formats.artifact import Artifact, load


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Path = Path("ssp_runtime/shipped/python-bytes")
    streams: tuple[int, ...] = (1, 16, 64)
    tokens: int = 200
    """Tokens that each stream generates in a turn."""
    prompt: int = 1000
    """Tokens of the prompts."""
    prompts: tuple[int, ...] = (1, 16)
    """How many of them are read at once."""
    turns: int = 7
    slots: int = 64
    threads: int = 1


class Mode:
    """An engine whose tokens the calling thread takes as they come."""

    def __init__(self, artifact: Artifact, flags: Flags, quantum: int | None) -> None:
        self._news: queue.SimpleQueue[list[Call]] = queue.SimpleQueue()
        assert artifact.description.tokenizer is not None
        self._tokenizer = artifact.description.tokenizer
        config = EngineConfig(num_slots=flags.slots, threads=flags.threads, quantum=quantum)
        self.engine = Engine(artifact.language_model, (), config, deliver=self._news.put)
        self.engine.start()

    def decode_rate(self, streams: int, tokens: int) -> float:
        """Tokens a second of all streams together, from the last one's first token to the first one's last."""
        calls = self._submitted(streams, [1], SamplingParams(temperature=0.0, max_tokens=tokens + 1))
        while min(call.num_generated for call in calls) < 1:
            self._read()
        started, before = time.perf_counter(), sum(call.num_generated for call in calls)
        while max(call.num_generated for call in calls) <= tokens:
            self._read()
        rate = (sum(call.num_generated for call in calls) - before) / (time.perf_counter() - started)
        self._finish(calls)
        return rate

    def prefill_rate(self, prompts: int, length: int) -> float:
        """Tokens of prompts a second, with nothing generated."""
        started = time.perf_counter()
        calls = self._submitted(prompts, [1 + i % 255 for i in range(length)], None)
        self._finish(calls)
        return prompts * length / (time.perf_counter() - started)

    def _submitted(self, count: int, prompt: list[int], params: SamplingParams | None) -> list[Call]:
        sequences = [Sequence(self._tokenizer.detokenizer(), kept=False) for _ in range(count)]
        calls = [Call(sequence, prompt, params) for sequence in sequences]
        for call in calls:
            self.engine.submit(call)
        return calls

    def _read(self) -> None:
        for call in self._news.get():
            call.take(1_000_000)
        self.engine.wake()

    def _finish(self, calls: list[Call]) -> None:
        while any(call.finish_reason is None for call in calls):
            self._read()


def compare(what: str, count: int, modes: tuple[Mode, Mode], flags: Flags) -> None:
    def rate(mode: Mode) -> float:
        if what == "prompt tokens/s":
            return mode.prefill_rate(count, flags.prompt)
        return mode.decode_rate(count, flags.tokens)

    for mode in modes:
        rate(mode)  # warm
    turns = []
    for number in range(flags.turns):
        order = modes[:: 1 if number % 2 else -1]
        turns.append({mode: rate(mode) for mode in order})
    default, exact = modes
    medians = [statistics.median(turn[mode] for turn in turns) for mode in modes]
    ratio = statistics.median(turn[exact] / turn[default] for turn in turns)
    print(f"{what:>20} {count:>8} {medians[0]:>12,.0f} {medians[1]:>14,.0f} {ratio:>8.2f}", flush=True)


def main(flags: Flags) -> None:
    torch.set_num_threads(flags.threads)
    artifact = load(flags.model)
    started = time.perf_counter()
    quantum = deterministic.quantum(artifact.language_model, flags.slots, flags.threads)
    print(
        f"{flags.slots} slots: steps over multiples of {quantum} rows, found in {time.perf_counter() - started:.1f} s"
    )
    modes = Mode(artifact, flags, None), Mode(artifact, flags, quantum)
    print(f"{'':>20} {'at once':>8} {'default':>12} {'deterministic':>14} {'ratio':>8}")
    for count in flags.streams:
        compare("generated tokens/s", count, modes, flags)
    for count in flags.prompts:
        compare("prompt tokens/s", count, modes, flags)
    for mode in modes:
        mode.engine.stop()


if __name__ == "__main__":
    main(tyro.cli(Flags))
