"""`ssp health`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ssp_client.cli.connection import Server
from ssp_client.types import ServingStatus

# A probe must not hang where the user gave no --timeout, in seconds.
PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """Ask whether the server is ready; the exit code is 0 if so, else 1.

    examples:
      ssp health                                (the process is alive)
      ssp health --service ssp.v1.Generation    (models loaded, warmed up, not draining)
      ssp health --wait 60                      (until it is ready, for a minute at most)
    """

    service: str = ""
    """One service, for example ssp.v1.Generation; empty: the process."""
    wait: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 0.0
    """Wait until it is ready, for at most this long."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the status."""
        with self.server.client(timeout=PATIENCE) as client:
            if self.wait:
                client.wait_until_ready(self.wait, service=self.service)
            status = client.health(self.service)
        print(status)
        return 0 if status is ServingStatus.SERVING else 1
