"""`ssp bench classify`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ssp_client.batching import choose_classifier
from ssp_client.bench.classify import Throughput, measure
from ssp_client.cli.bench.common import write_results
from ssp_client.cli.connection import ModelName, OptionalInt, OptionalPath, Server
from ssp_client.cli.output import table
from ssp_client.client import Client
from ssp_client.types import ModelInfo
from ssp_client.window import LOOK_AHEAD


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Measure classification: sequences and tokens per second over lengths.

    examples:
      ssp bench classify --lengths 64 1024 16384 --num-sequences 500
    """

    model: ModelName = ""
    """The model; may be left out if the server has one that classifies."""
    lengths: tuple[int, ...] = (64, 256, 1024, 4096)
    """Tokens (or vectors) per sequence."""
    num_sequences: int = 100
    """Sequences of each length."""
    batch_size: OptionalInt = None
    """Sequences per message."""
    look_ahead: int = LOOK_AHEAD
    """Sequences under way at once."""
    seed: int = 0
    """Of the sequences."""
    json: OptionalPath = None
    """Write settings and results to this file."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints one row per length."""
        with self.server.client() as client:
            model = client.model(self.model) if self.model else choose_classifier(client.models())
            rows = [self._measure(client, model, length) for length in self.lengths]
        cells = [
            (
                r.length,
                f"{1000 * r.seconds / r.sequences:.2f}",
                f"{r.sequences_per_second:.1f}",
                f"{r.tokens_per_second:.0f}",
            )
            for r in rows
        ]
        print(table(("LENGTH", "MS/SEQUENCE", "SEQUENCE/S", "TOKEN/S"), cells, right=range(4)))
        results = [
            asdict(r) | {"sequences_per_second": r.sequences_per_second, "tokens_per_second": r.tokens_per_second}
            for r in rows
        ]
        write_results(self.json, self, "classify", model, results)
        return 0

    def _measure(self, client: Client, model: ModelInfo, length: int) -> Throughput:
        return measure(
            client,
            model,
            length=length,
            count=self.num_sequences,
            batch_size=self.batch_size,
            look_ahead=self.look_ahead,
            seed=self.seed,
        )


def _row(measured: Throughput) -> tuple[object, ...]:
    each = 1000 * measured.seconds / measured.sequences
    return measured.length, f"{each:.2f}", f"{measured.sequences_per_second:.1f}", f"{measured.tokens_per_second:.0f}"
