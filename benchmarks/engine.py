"""The engine's token rate by that of a bare loop over the model's step, sampling included, in one process without gRPC.

python -m benchmarks.engine --rows 1 16 64

Two bare loops, one with torch's argmax and multinomial and one with the engine's own `sample`, take turns with the
engine over the same model; the medians of the turns' ratios are shown, by the clock and by processor time. Nothing else
should run meanwhile; where something does, trust processor time.
"""

import queue
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import tyro
from torch import Tensor

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.chunks import Chunking
from ssp_runtime.engine.config import EngineConfig
from ssp_runtime.engine.engine import Engine
from ssp_runtime.engine.sampling import Draw, sample
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.formats.artifact import load
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.models.architectures import model_config
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.tokenizers import ByteTokenizer, Detokenizer


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Path = Path("ssp_runtime/shipped/python-bytes")
    large: bool = True
    """Measure random weights in the shape of a Mamba of 130M parameters as well."""
    rows: tuple[int, ...] = (1, 16, 64)
    temperatures: tuple[float, ...] = (0.0, 1.0)
    turns: int = 9
    seconds: float = 0.5
    """How long one turn takes, about."""
    threads: int = 1


class Seconds(NamedTuple):
    """Of one step of all rows."""

    clock: float
    processor: float


CHUNKING = Chunking(max_tokens=8, max_delay=0.02, elastic=True)  # as servers do by default

Turn = Callable[[int], Seconds]  # over that many steps
Pick = Callable[[Tensor], list[int]]


class Characters:
    """The detokenizer of no particular vocabulary."""

    @property
    def waiting(self) -> list[int]:
        return []

    def follow(self, ids: Iterable[int]) -> None:
        pass

    def push(self, ids: Iterable[int]) -> str:
        return "".join(map(chr, ids))

    def finish(self) -> str:
        return ""


def mamba_130m() -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(model_config("mamba", d_model=768, num_layers=24, dropout=0.0, vocab_size=50_280))
    to_recurrent(model)
    return model


def bare_loop(model: LanguageModel, rows: int, pick: Pick) -> Turn:
    state = model.initial_state(rows)

    @torch.inference_mode()
    def turn(steps: int) -> Seconds:
        ids = [1] * rows
        since = _now()
        for _ in range(steps):
            logits_BV, _ = model.step(torch.tensor(ids), state, out=state)
            ids = pick(logits_BV)
        return _passed(since, steps)

    return turn


def torch_pick(params: SamplingParams) -> Pick:
    if params.greedy:
        return lambda logits_BV: logits_BV.argmax(-1).tolist()
    return lambda logits_BV: torch.multinomial((logits_BV / params.temperature).softmax(-1), 1)[:, 0].tolist()


def own_pick(params: SamplingParams, rows: int) -> Pick:
    draws = [Draw(params=params, position=row) for row in range(rows)]
    return lambda logits_BV: sample(logits_BV, draws)


class Engaged:
    """An engine whose tokens the calling thread takes, in chunks."""

    def __init__(self, model: LanguageModel, rows: int, flags: Flags, detokenizer: Callable[[], Detokenizer]) -> None:
        self._news: queue.SimpleQueue[list[Call]] = queue.SimpleQueue()
        config = EngineConfig(num_slots=rows, threads=flags.threads)
        self.engine = Engine(model, (), config, deliver=self._news.put)
        self._rows, self._detokenizer = rows, detokenizer

    def turns(self, params: SamplingParams) -> Turn:
        """What counts is the time from when every row has a token until the first is done."""

        def turn(steps: int) -> Seconds:
            last = SamplingParams(temperature=params.temperature, max_tokens=steps + 1)
            calls = [
                Call(Sequence(self._detokenizer(), kept=False), [1], last, CallOptions(chunking=CHUNKING))
                for _ in range(self._rows)
            ]
            for call in calls:
                self.engine.submit(call)
            rounds = self._rounds(calls)
            next(_ for _ in rounds if min(call.num_generated for call in calls) > 0)
            since, before = _now(), sum(call.num_generated for call in calls)
            next(_ for _ in rounds if max(call.num_generated for call in calls) > steps)
            took = _passed(since, (sum(call.num_generated for call in calls) - before) / self._rows)
            for _ in rounds:
                pass
            return took

        return turn

    def _rounds(self, calls: list[Call]) -> Iterator[None]:
        """Whenever the engine tells of chunks, until all calls have ended."""
        while any(call.finish_reason is None for call in calls):
            for call in self._news.get():
                call.take(CHUNKING.max_tokens)
            self.engine.wake()
            yield


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def _passed(since: Seconds, steps: float) -> Seconds:
    now = _now()
    return Seconds((now.clock - since.clock) / steps, (now.processor - since.processor) / steps)


def measured(turns: dict[str, Turn], flags: Flags) -> dict[str, list[Seconds]]:
    """Seconds a step in each turn; who goes first alternates."""
    step = turns["torch"](3).clock
    steps = max(4, round(flags.seconds / step))
    taken: dict[str, list[Seconds]] = {name: [] for name in turns}
    for number in range(flags.turns):
        for name in list(turns)[:: 1 if number % 2 else -1]:
            taken[name].append(turns[name](steps))
    return taken


def show(name: str, rows: int, temperature: float, taken: dict[str, list[Seconds]]) -> None:
    def ratio(loop: str, kind: int) -> float:
        pairs = zip(taken[loop], taken["engine"], strict=True)
        return statistics.median(bare[kind] / engine[kind] for bare, engine in pairs)

    step = statistics.median(seconds.clock for seconds in taken["torch"])
    cells = [f"{ratio(loop, kind):>14.1%}" for loop in ("torch", "own") for kind in range(len(Seconds._fields))]
    print(f"{name:>14} {rows:>5} {temperature:>11g} {1e3 * step:>8.2f} ms {''.join(cells)}", flush=True)


def compare(name: str, model: LanguageModel, detokenizer: Callable[[], Detokenizer], flags: Flags) -> None:
    for rows in flags.rows:
        engaged = Engaged(model, rows, flags, detokenizer)
        engaged.engine.start()
        for temperature in flags.temperatures:
            params = SamplingParams(temperature=temperature)
            picks = {"torch": torch_pick(params), "own": own_pick(params, rows)}
            turns = {loop: bare_loop(model, rows, pick) for loop, pick in picks.items()}
            show(name, rows, temperature, measured({**turns, "engine": engaged.turns(params)}, flags))
        engaged.engine.stop()


def main(flags: Flags) -> None:
    torch.set_num_threads(flags.threads)
    print(f"{'':14} {'':5} {'':11} {'bare':>11} {'engine / loop with torch':>28}{'engine / loop with own':>28}")
    print(f"{'model':>14} {'rows':>5} {'temperature':>11} {'step':>11} " + 2 * f"{'by clock':>14}{'by processor':>14}")
    compare(flags.model.name, load(flags.model).language_model, ByteTokenizer().detokenizer, flags)
    if flags.large:
        compare("mamba-130m", mamba_130m(), Characters, flags)


if __name__ == "__main__":
    main(tyro.cli(Flags))
