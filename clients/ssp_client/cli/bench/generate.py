"""`ssp bench generate`."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict, dataclass, field
from typing import Annotated

import numpy as np
import tyro

from ssp_client.bench import plots, prompts, report, stats
from ssp_client.bench.arrivals import arrival_times
from ssp_client.bench.load import Load, Outcome
from ssp_client.cli.bench.common import Folder, choose_generator, write_results
from ssp_client.cli.connection import ModelName, OptionalPath, Server
from ssp_client.cli.output import note
from ssp_client.extras import need, progress_bar
from ssp_client.types import ModelInfo, SamplingParams, SequenceLike, StreamOptions


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Measure generation: TTFT, TPOT, ITL, latency, throughput, goodput.

    examples:
      ssp bench --num-prompts 200 --request-rate 20 --goodput ttft:200 tpot:20
      ssp bench --concurrency 16 --max-tokens 256 --json run.json --plot plots/
      ssp bench --prompt-file story.txt --prompt-tokens 1000

    Without --request-rate all requests are sent at once, or --concurrency of them at a time. A chunk of k tokens
    counts as k equal gaps in ITL; --chunk-tokens 1 has the server send every token by itself.
    """

    model: ModelName = ""
    """The model; may be left out if the server has one that generates."""
    num_prompts: int = 100
    """Requests to measure."""
    prompt_tokens: int = 32
    """Tokens of each prompt; with --prompt-file characters."""
    prompt_file: OptionalPath = None
    """Take prompts from random places of this text; without it they are random token ids."""
    max_tokens: int = 128
    """Tokens each request generates; the end-of-text token does not stop it."""
    request_rate: float = math.inf
    """Requests per second; inf sends all at once."""
    burstiness: float = 1.0
    """1 is a Poisson process; less is burstier, more is steadier."""
    concurrency: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: no limit)")] = None
    """Requests under way at most."""
    chunk_tokens: int = 1
    """Tokens the server may put into one message."""
    warmup: int = 2
    """Requests before those that count."""
    temperature: float = 1.0
    """0 always takes the likeliest token."""
    seed: int = 0
    """Of prompts, arrivals and draws."""
    goodput: tuple[str, ...] = ()
    """Objectives in milliseconds: ttft:200 tpot:20 e2e:1000."""
    json: OptionalPath = None
    """Write settings and results to this file."""
    plot: Folder = None
    """Write latency.png to this folder."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the table; 1 if no request succeeded."""
        objectives = stats.parse_objectives(self.goodput)
        if self.plot:
            need("matplotlib", "bench")
        self._check()
        model, outcome = asyncio.run(self._measure())
        if not outcome.requests:
            raise ValueError(f"no request succeeded; the first failed with {outcome.errors[0]}")
        result = stats.Report.of(
            outcome.requests, duration=outcome.duration, failed=len(outcome.errors), objectives=objectives
        )
        print(report.latency_table(result))
        self._warn(outcome)
        self._keep(model, result, outcome)
        return 0

    def _check(self) -> None:
        counts = (self.num_prompts, self.max_tokens, self.chunk_tokens, self.concurrency)
        if any(count is not None and count < 1 for count in counts) or self.warmup < 0:
            raise ValueError("--num-prompts, --max-tokens, --chunk-tokens and --concurrency are at least 1, --warmup 0")

    async def _measure(self) -> tuple[ModelInfo, Outcome]:
        generator = np.random.default_rng(self.seed)
        async with self.server.async_client() as client:
            model = await client.model(self.model) if self.model else choose_generator(await client.models())
            load = Load(
                client=client,
                model=model.name,
                sampling_params=SamplingParams(
                    max_tokens=self.max_tokens, ignore_eos=True, temperature=self.temperature, seed=self.seed
                ),
                stream_options=StreamOptions(max_chunk_tokens=self.chunk_tokens),
                concurrency=self.concurrency,
            )
            warm, asked = self._prompts(model, generator)
            await load.run(warm, [0.0] * len(warm), lambda: None)
            departures = arrival_times(
                len(asked), rate=self.request_rate, burstiness=self.burstiness, generator=generator
            )
            with progress_bar(total=len(asked), unit="req") as bar:
                return model, await load.run(asked, departures.tolist(), bar.update)

    def _prompts(
        self, model: ModelInfo, generator: np.random.Generator
    ) -> tuple[list[SequenceLike], list[SequenceLike]]:
        count = self.warmup + self.num_prompts
        if self.prompt_file:
            made = prompts.slices(self.prompt_file, count, self.prompt_tokens, generator)
        else:
            made = prompts.random_ids(model, count, self.prompt_tokens, generator)
        return made[: self.warmup], made[self.warmup :]

    def _warn(self, outcome: Outcome) -> None:
        if outcome.errors:
            note(f"{len(outcome.errors)} requests failed; the first with {outcome.errors[0]}")
        if outcome.client_load > 0.8:
            note(
                f"this client used {100 * outcome.client_load:.0f} % of a processor and may be what was measured; "
                "raise --chunk-tokens or run several"
            )

    def _keep(self, model: ModelInfo, result: stats.Report, outcome: Outcome) -> None:
        results = asdict(result) | {"client_load": outcome.client_load, "errors": outcome.errors}
        write_results(self.json, self, "generate", model, results)
        if self.plot:
            note(f"wrote {plots.plot_latencies(outcome.requests, self.plot)}")
