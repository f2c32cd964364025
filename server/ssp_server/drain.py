"""Taking the server out of service, and back."""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from grpc_health.v1 import health, health_pb2

from ssp_server.border import Border
from ssp_server.readers import Readers
from ssp_server.registry import Registry
from ssp_server.waiting import within

log = structlog.get_logger()

_GRACE = 1.0  # seconds for the last messages of calls that were ended


@dataclass(frozen=True, kw_only=True)
class Drain:
    """`services` are the names whose health tells whether the server takes calls."""

    registry: Registry
    border: Border
    readers: Readers
    health: health.aio.HealthServicer
    services: Iterable[str]

    async def begin(self) -> None:
        """Refuses what is new."""
        self.registry.draining = True
        await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def resume(self) -> None:
        """Takes calls; what has been ended stays so."""
        self.registry.draining = False
        await self._tell(health_pb2.HealthCheckResponse.SERVING)

    async def run(self, seconds: float) -> None:
        """Begins, lets what runs go on for a while, then ends it at its last token."""
        log.info("draining", seconds=seconds)
        await self.begin()
        if not await within(seconds, self._is_over):
            self.readers.cancel_all()
            await within(_GRACE, self._is_over)

    def _is_over(self) -> bool:
        return not (self.registry.draining and self.border.calls_under_way)

    async def _tell(self, status: int) -> None:
        for service in self.services:
            await self.health.set(service, status)
