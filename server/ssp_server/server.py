"""The server: models loaded and warmed up, calls answered, and everything put away at the end."""

import asyncio
import signal
import time
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ssp.v1 import classification_pb2, generation_pb2, models_pb2, sessions_pb2
from ssp_kernels import registry as kernels
from ssp_kernels.operators import OPERATORS
from ssp_runtime.engine.batch_classifier import BatchClassifier, ClassifierConfig
from ssp_runtime.engine.engine import EngineConfig
from ssp_runtime.engine.generator import GenerationLimits, Generator
from ssp_runtime.formats.artifact import Artifact, load
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.sessions.manager import SessionLimits, SessionManager
from ssp_server.border import Border
from ssp_server.config import ConfigError, ServerConfig
from ssp_server.metrics import ClassifierMetrics, Gauges, Metrics, ModelMetrics
from ssp_server.readers import Readers
from ssp_server.registry import Registry, Served
from ssp_server.services.classification import ClassificationService
from ssp_server.services.generation import GenerationService
from ssp_server.services.models import ModelsService
from ssp_server.services.sessions import SessionsService

log = structlog.get_logger()

_SERVICES = {
    "Generation": generation_pb2.DESCRIPTOR.services_by_name["Generation"],
    "Sessions": sessions_pb2.DESCRIPTOR.services_by_name["Sessions"],
    "Classification": classification_pb2.DESCRIPTOR.services_by_name["Classification"],
    "Models": models_pb2.DESCRIPTOR.services_by_name["Models"],
}


class Server:
    """`async with Server(config) as server: await server.wait()`."""

    def __init__(self, config: ServerConfig) -> None:
        config.check()
        self._config = config
        self._metrics = Metrics()
        self._health = health.aio.HealthServicer()
        self.port = 0
        self.metrics_port = 0

    async def __aenter__(self) -> "Server":
        config = self._config
        kernels.choose(config.kernels)
        self._readers = Readers(asyncio.get_running_loop())
        self._registry = Registry([self._load(name, folder) for name, folder in config.named_models().items()])
        self._sessions = SessionManager(
            SessionLimits(max_sessions=config.limits.max_sessions, max_state_bytes=config.limits.max_state_bytes)
        )
        self._metrics.registry.register(Gauges(self._registry, self._sessions))
        if config.metrics_port >= 0:
            self.metrics_port = self._metrics.serve(config.metrics_port)
        self._grpc = self._build()
        self.port = self._bind()
        for served in self._registry.all():
            served.start()
        await self._grpc.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", address=f"{config.host}:{self.port}", metrics_port=self.metrics_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drain()
        for served in self._registry.all():
            served.stop()
        await self._grpc.stop(grace=1.0)
        log.info("stopped")

    async def wait(self) -> None:
        """Returns when the process is told to stop."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()

    def _load(self, name: str, folder: Path) -> Served:
        started = time.monotonic()
        artifact = load(folder)
        self._to_device(artifact)
        self._warm_up(artifact)
        served = self._serve(name, artifact)
        log.info("loaded", model=name, seconds=round(time.monotonic() - started, 3), fingerprint=artifact.fingerprint)
        return served

    def _to_device(self, artifact: Artifact) -> None:
        try:
            artifact.model.to(self._config.device)
        except (RuntimeError, AssertionError) as error:  # torch raises either
            raise ConfigError(f"--device {self._config.device} cannot be used here: {error}") from error

    def _warm_up(self, artifact: Artifact) -> None:
        try:
            artifact.warm_up()
        except kernels.Unavailable as error:
            raise ConfigError(f"--kernels {self._config.kernels} cannot be used here: {error}") from error
        for operator in OPERATORS:
            for form, reason in operator.unavailable.items():
                log.warning("slower than it could be", operator=operator.name, without=form, reason=reason)

    def _serve(self, name: str, artifact: Artifact) -> Served:
        limits, threads = self._config.limits, self._config.threads
        if isinstance(artifact.model, LanguageModel):
            return Generator(
                name,
                artifact,
                EngineConfig(num_slots=self._config.slots, threads=threads),
                GenerationLimits(
                    max_tokens=limits.max_tokens,
                    max_input_tokens=limits.max_input_tokens,
                    max_waiting=limits.max_waiting,
                ),
                deliver=self._readers.deliver,
                observer=ModelMetrics(self._metrics, name),
            )
        config = ClassifierConfig(max_input_tokens=limits.max_input_tokens, threads=threads)
        return BatchClassifier(name, artifact, config, ClassifierMetrics(self._metrics, name))

    def _build(self) -> grpc.aio.Server:
        self._border = Border(token=self._config.token(), metrics=self._metrics)
        services = {
            "Generation": GenerationService(registry=self._registry, sessions=self._sessions, readers=self._readers),
            "Sessions": SessionsService(registry=self._registry, sessions=self._sessions, readers=self._readers),
            "Classification": ClassificationService(registry=self._registry),
            "Models": ModelsService(registry=self._registry, max_message_bytes=self._config.limits.max_message_bytes),
        }
        server = grpc.aio.server(options=_options(self._config.limits.max_message_bytes))
        handlers = [self._border.handler(_SERVICES[name], service) for name, service in services.items()]
        server.add_generic_rpc_handlers(tuple(handlers))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [descriptor.full_name for descriptor in _SERVICES.values()]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        return server

    def _bind(self) -> int:
        address = f"{self._config.host}:{self._config.port}"
        try:
            credentials = self._credentials()
            if credentials is None:
                return self._grpc.add_insecure_port(address)
            return self._grpc.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ConfigError(
                f"{address} cannot be listened on, perhaps it is in use: choose another --port"
            ) from error

    def _credentials(self) -> grpc.ServerCredentials | None:
        tls = self._config.tls
        if tls.cert is None or tls.key is None:
            return None
        try:
            return grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
        except OSError as error:
            raise ConfigError(f"the TLS files cannot be read: {error}") from error

    async def _set_health(self, status: int) -> None:
        for descriptor in _SERVICES.values():
            await self._health.set(descriptor.full_name, status)

    async def _drain(self) -> None:
        """Refuses what is new, lets what runs go on for a while, then ends it at its last token."""
        log.info("draining", seconds=self._config.drain_seconds)
        self._registry.draining = True
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        deadline = time.monotonic() + self._config.drain_seconds
        while time.monotonic() < deadline and self._border.calls_under_way:
            await asyncio.sleep(0.05)


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Settings of gRPC that the defaults get wrong for long streams from many clients."""
    return [
        ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.server.max_pending_requests", 10_000),
        ("grpc.server.max_pending_requests_hard_limit", 20_000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.bdp_probe", 0),
    ]
