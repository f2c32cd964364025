"""`ssp bench position`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ssp_client.bench import plots
from ssp_client.bench.position import walk
from ssp_client.cli.bench.common import Folder, choose_generator, write_results
from ssp_client.cli.connection import ModelName, OptionalPath, Server
from ssp_client.cli.output import note, table
from ssp_client.extras import need, progress_bar


@dataclass(frozen=True, kw_only=True)
class Position:
    """Measure the time of a token against its position in one long session.

    examples:
      ssp bench position --positions 100000 --plot plots/

    A recurrent model takes as long for a late token as for an early one: the slope is about 0.
    """

    model: ModelName = ""
    """The model; may be left out if the server has one that generates."""
    positions: int = 20_000
    """Tokens to generate."""
    chunk_tokens: int = 100
    """Tokens per measurement."""
    buckets: int = 10
    """Rows of the table."""
    json: OptionalPath = None
    """Write settings and results to this file."""
    plot: Folder = None
    """Write position.png to this folder."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints one row per range of positions, and the slope."""
        if self.plot:
            need("matplotlib", "bench")
        with self.server.client() as client, progress_bar(total=self.positions, unit="tok") as bar:
            model = client.model(self.model) if self.model else choose_generator(client.models())
            path = walk(client, model, positions=self.positions, chunk_tokens=self.chunk_tokens, advanced=bar.update)
        medians = path.buckets(self.buckets)
        rows = [(f"{b.start}-{b.stop}", f"{1000 * b.seconds_per_token:.4f}") for b in medians]
        print(table(("POSITION", "MS/TOKEN"), rows, right=(0, 1)))
        print(f"slope {1e9 * path.slope():+.3f} us per token per 1,000 positions")
        results = {"buckets": [asdict(b) for b in medians], "slope_seconds_per_position": path.slope()}
        write_results(self.json, self, "position", model, results)
        if self.plot:
            note(f"wrote {plots.plot_position(path, medians, self.plot)}")
        return 0
