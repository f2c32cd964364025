"""Models from folders on disk to models that serve, and away again."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from ssp_kernels import registry as kernels
from ssp_kernels.operators import OPERATORS
from ssp_runtime.engine import deterministic
from ssp_runtime.engine.batch_runner import BatchConfig, BatchRunner
from ssp_runtime.engine.config import EngineConfig
from ssp_runtime.engine.deterministic import Unfit
from ssp_runtime.engine.generator import GenerationLimits, Generator
from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.formats.open import open_model
from ssp_runtime.models.model import CausalModel
from ssp_server import memory
from ssp_server.auditing import Auditing
from ssp_server.chats import Chats
from ssp_server.config import ConfigError, ServerConfig
from ssp_server.metrics import BatchMetrics, Metrics
from ssp_server.readers import Readers
from ssp_server.registry import Registry, Served
from ssp_server.waiting import within

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Loader:
    """`load` from any thread, the rest on the event loop."""

    config: ServerConfig
    metrics: Metrics
    auditing: Auditing
    readers: Readers
    registry: Registry
    chats: Chats

    def load(self, name: str, folder: Path) -> Served:
        """A model, loaded and warmed up, but not started.

        Raises:
            ArtifactError: the folder holds no sound model.
            ConfigError: models cannot run here as the server was told.
        """
        started = time.monotonic()
        artifact = open_model(folder)
        self._to_device(artifact)
        self._warm_up(artifact)
        served = self._serve(name, artifact)
        log.info("loaded", model=name, seconds=round(time.monotonic() - started, 3), fingerprint=artifact.fingerprint)
        return served

    async def add(self, name: str, folder: Path) -> Served:
        """Loads a model beside those that serve. Raises `ModelExists` or `ArtifactError`."""
        self.registry.reserve(name)
        try:
            served = await asyncio.to_thread(self.load, name, folder)
        except ConfigError as error:
            raise ArtifactError(str(error)) from error
        finally:
            self.registry.release(name)
        served.start()
        memory.settle()
        self.registry.add(served)
        return served

    async def finish(self, name: str) -> None:
        """Waits for the calls of a retired model, for as long as a drain may take."""
        served = self.registry.find(name)
        await within(self.config.drain_seconds, lambda: not self._calls(served))

    async def remove(self, name: str) -> None:
        """Ends what calls a retired model has left at a token, and gives its memory back."""
        await asyncio.to_thread(self.registry.find(name).stop)
        self.registry.remove(name)
        await self.chats.forget(name)
        self.metrics.loads.pop(name, None)
        self.auditing.forget(name)
        memory.give_back()
        log.info("unloaded", model=name)

    def _calls(self, served: Served) -> int:
        return served.num_waiting if isinstance(served, BatchRunner) else self.readers.count(served.engine)

    def _quantum(self, model: CausalModel) -> int | None:
        if not self.config.deterministic:
            return None
        try:
            return deterministic.quantum(model, self.config.slots, self.config.threads)
        except Unfit as error:
            raise ConfigError(f"--deterministic cannot be kept here: {error}") from error

    def _to_device(self, artifact: Artifact) -> None:
        try:
            artifact.model.to(self.config.device)
        except (RuntimeError, AssertionError) as error:  # torch raises either
            raise ConfigError(f"--device {self.config.device} cannot be used here: {error}") from error

    def _warm_up(self, artifact: Artifact) -> None:
        try:
            artifact.warm_up()
        except kernels.Unavailable as error:
            raise ConfigError(f"--kernels {self.config.kernels} cannot be used here: {error}") from error
        for operator in OPERATORS:
            for form, reason in operator.unavailable.items():
                log.warning("slower than it could be", operator=operator.name, without=form, reason=reason)

    def _serve(self, name: str, artifact: Artifact) -> Served:
        limits, threads = self.config.limits, self.config.threads
        if isinstance(artifact.model, CausalModel):
            generator = Generator(
                name,
                artifact,
                EngineConfig(
                    num_slots=self.config.slots,
                    threads=threads,
                    prefix_bytes=limits.max_prefix_bytes,
                    quantum=self._quantum(artifact.model),
                ),
                GenerationLimits(
                    max_tokens=limits.max_tokens,
                    max_input_tokens=limits.max_input_tokens,
                    max_waiting=limits.max_waiting,
                ),
                deliver=self.readers.deliver,
                observer=self.auditing.observer(name, artifact.model),
            )
            self.auditing.attach(generator)
            return generator
        config = BatchConfig(max_input_tokens=limits.max_input_tokens, threads=threads)
        return BatchRunner(name, artifact, config, BatchMetrics(self.metrics, name))
