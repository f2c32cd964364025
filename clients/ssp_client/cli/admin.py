"""`ssp admin`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from ssp_client.cli.connection import Server
from ssp_client.cli.output import in_bytes, note, table
from ssp_client.types import ModelLoad


@dataclass(frozen=True, kw_only=True)
class Loads:
    """Show how busy the server and each of its models are.

    examples:
      ssp admin loads
      ssp admin loads --json | jq '.models[] | {model, waiting}'
    """

    json: bool = False
    """Print JSON."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints one row per model."""
        with self.server.client() as client:
            load = client.load()
        if self.json:
            print(json.dumps(asdict(load), indent=2))
            return 0
        header = ("MODEL", "RUNNING", "WAITING", "SLOTS", "SESSIONS", "STATES", "TOKEN/S", "QUEUE MS")
        print(table(header, [_row(model) for model in load.models], right=range(1, 8)))
        note(f"{load.calls} calls under way{', draining' if load.draining else ''}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Drain:
    """Take the server out of service, and wait until its calls have ended; sessions stay.

    examples:
      ssp admin drain
      ssp admin drain --resume
    """

    resume: bool = False
    """Take it back into service."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Says what is left."""
        with self.server.client() as client:
            if self.resume:
                client.resume()
                note("in service")
            else:
                note(f"out of service, {client.drain()} calls under way")
        return 0


def _row(load: ModelLoad) -> tuple[object, ...]:
    slots = f"{load.slots_used}/{load.slots_total}" if load.slots_total else "-"
    rate, queue = f"{load.tokens_per_second:.0f}", f"{1000 * load.queue_seconds:.1f}"
    return load.model, load.running, load.waiting, slots, load.sessions, in_bytes(load.state_bytes), rate, queue
