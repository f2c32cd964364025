"""`ssp bench sessions`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from ssp_client.bench import prompts
from ssp_client.bench.sessions import SessionCost, measure
from ssp_client.cli.bench.common import choose_generator, write_results
from ssp_client.cli.connection import ModelName, OptionalPath, Server
from ssp_client.cli.output import in_bytes
from ssp_client.extras import progress_bar


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """Measure what sessions cost: bytes of state each, sessions per GiB, the server's memory.

    examples:
      ssp bench sessions --count 1000
      ssp bench sessions --metrics-url http://127.0.0.1:9090/metrics

    The sessions are closed again at the end.
    """

    model: ModelName = ""
    """The model; may be left out if the server has one that generates."""
    count: int = 100
    """Sessions to open."""
    prompt_tokens: int = 16
    """Random tokens to fold into each."""
    metrics_url: str = "http://127.0.0.1:9090/metrics"
    """The server's Prometheus page, for its memory."""
    json: OptionalPath = None
    """Write settings and results to this file."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the costs; 1 if not all sessions could be opened."""
        with self.server.client() as client, progress_bar(total=self.count, unit="session") as bar:
            model = client.model(self.model) if self.model else choose_generator(client.models())
            (prompt,) = prompts.random_ids(model, 1, self.prompt_tokens, np.random.default_rng(0))
            cost = measure(
                client,
                model=model.name,
                count=self.count,
                prompt=prompt,
                metrics_url=self.metrics_url,
                done=bar.update,
            )
        print(_cost_table(cost))
        results = asdict(cost) | {
            "sessions_per_gib": cost.sessions_per_gib,
            "memory_per_session": cost.memory_per_session,
        }
        write_results(self.json, self, "sessions", model, results)
        if cost.refusal:
            raise ValueError(f"only {cost.opened} of {cost.asked} sessions could be opened: {cost.refusal}")
        return 0


def _cost_table(cost: SessionCost) -> str:
    growth = cost.memory_per_session
    facts = {
        "sessions opened": cost.opened,
        "open and append, ms each": f"{1000 * cost.open_seconds / max(cost.opened, 1):.2f}",
        "state per session": in_bytes(cost.state_bytes),
        "sessions per GiB": f"{cost.sessions_per_gib:,.0f}",
        "server memory before": "unknown" if cost.memory_before is None else in_bytes(cost.memory_before),
        "server memory after": "unknown" if cost.memory_after is None else in_bytes(cost.memory_after),
        "server memory per session": "unknown" if growth is None else in_bytes(growth),
    }
    return "\n".join(f"{name.ljust(26)}{value}" for name, value in facts.items())
