"""`ssp.v1.Admin`."""

import time
from collections import Counter
from dataclasses import dataclass

from ssp.v1 import admin_pb2
from ssp_runtime.completed import completed
from ssp_runtime.engine.generator import Generator
from ssp_runtime.sessions.keeper import Keeper
from ssp_server.border import Border
from ssp_server.drain import Drain
from ssp_server.metrics import Metrics
from ssp_server.registry import Registry, Served


class Tally:
    """How many sessions and states each model has, counted at most once a second: there may be many."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._stale_at = 0.0
        self._counts = Counter[str](), Counter[str]()

    def __call__(self) -> tuple[Counter[str], Counter[str]]:
        if time.monotonic() >= self._stale_at:
            self._counts = self._count()
            self._stale_at = time.monotonic() + 1.0
        return self._counts

    def _count(self) -> tuple[Counter[str], Counter[str]]:
        sessions, states = Counter[str](), Counter[str]()
        for session in self._keeper.sessions_of(""):
            sessions[session.model] += 1
            states[session.model] += 1 + len(session.checkpoints)
        return sessions, states


@dataclass(frozen=True, kw_only=True)
class AdminService:
    registry: Registry
    tally: Tally
    border: Border
    metrics: Metrics
    drain: Drain
    drain_seconds: float

    async def GetLoads(self, _: admin_pb2.GetLoadsRequest) -> admin_pb2.GetLoadsResponse:
        return admin_pb2.GetLoadsResponse(
            models=map(self._load, self.registry.all()),
            calls=self.border.calls_under_way,
            draining=self.registry.draining,
        )

    async def Drain(self, request: admin_pb2.DrainRequest) -> admin_pb2.DrainResponse:
        if request.resume:
            await self.drain.resume()
        else:
            await completed(self.drain.run(self.drain_seconds))
        return admin_pb2.DrainResponse(draining=self.registry.draining, calls=self.border.calls_under_way)

    def _load(self, served: Served) -> admin_pb2.ModelLoad:
        recent = self.metrics.loads[served.name]
        load = admin_pb2.ModelLoad(
            model=served.name, tokens_per_second=recent.tokens.per_second, queue_seconds=recent.queue.mean
        )
        if not isinstance(served, Generator):
            load.waiting = served.num_waiting
            return load
        engine, (sessions, states) = served.engine, self.tally()
        load.running, load.waiting = engine.num_running, engine.num_waiting
        load.slots_used, load.slots_total = engine.pool.num_used, engine.pool.num_slots
        load.sessions, load.state_bytes = sessions[served.name], states[served.name] * served.state_bytes
        return load
