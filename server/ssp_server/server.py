"""The server: models loaded and warmed up, calls answered, and everything put away at the end."""

import asyncio
import signal

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ssp.v1 import admin_pb2, classification_pb2, filling_pb2, generation_pb2, models_pb2, sessions_pb2
from ssp_kernels import registry as kernels
from ssp_server import memory
from ssp_server.auditing import Auditing
from ssp_server.border import Border
from ssp_server.chats import Chats
from ssp_server.config import ConfigError, ServerConfig
from ssp_server.drain import Drain
from ssp_server.keeping import make_keeper
from ssp_server.loader import Loader
from ssp_server.metrics import Gauges, Metrics
from ssp_server.model_roots import ModelRoots
from ssp_server.readers import Readers
from ssp_server.registry import Registry
from ssp_server.services.admin import AdminService, Tally
from ssp_server.services.classification import ClassificationService
from ssp_server.services.filling import FillingService
from ssp_server.services.generation import GenerationService
from ssp_server.services.models import ModelsService
from ssp_server.services.sessions import SessionsService
from ssp_server.services.transfer import Transfer
from ssp_server.states import SealedStates

log = structlog.get_logger()

_SERVICES = {
    "Generation": generation_pb2.DESCRIPTOR.services_by_name["Generation"],
    "Sessions": sessions_pb2.DESCRIPTOR.services_by_name["Sessions"],
    "Classification": classification_pb2.DESCRIPTOR.services_by_name["Classification"],
    "Filling": filling_pb2.DESCRIPTOR.services_by_name["Filling"],
    "Models": models_pb2.DESCRIPTOR.services_by_name["Models"],
    "Admin": admin_pb2.DESCRIPTOR.services_by_name["Admin"],
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
        self._registry = Registry()
        self._auditing = Auditing(config.audit_fraction, self._metrics)
        self._chats = Chats(allowed=config.chat_templates)
        self._loader = Loader(
            config=config,
            metrics=self._metrics,
            auditing=self._auditing,
            readers=self._readers,
            registry=self._registry,
            chats=self._chats,
        )
        for name, folder in config.named_models().items():
            self._registry.add(self._loader.load(name, folder))
        self._keeper = make_keeper(config, self._registry, self._metrics)
        self._metrics.registry.register(Gauges(self._registry, self._keeper))
        if config.metrics_port >= 0:
            self.metrics_port = self._metrics.serve(config.metrics_port)
        self._grpc = self._build()
        self.port = self._bind()
        for served in self._registry.all():
            served.start()
        await self._keeper.start()
        await self._grpc.start()
        memory.settle()
        await self._drain.resume()
        log.info("serving", address=f"{config.host}:{self.port}", metrics_port=self.metrics_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drain.run(self._config.drain_seconds)
        await self._keeper.stop()
        await self._chats.close()
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

    def _build(self) -> grpc.aio.Server:
        config = self._config
        border = Border(access=config.access(), metrics=self._metrics)
        names = [descriptor.full_name for descriptor in _SERVICES.values()]
        self._drain = Drain(
            registry=self._registry, border=border, readers=self._readers, health=self._health, services=names
        )
        services = {
            "Generation": GenerationService(
                registry=self._registry,
                keeper=self._keeper,
                readers=self._readers,
                chats=self._chats,
                states=SealedStates(
                    registry=self._registry, key=config.seal_key(), max_bytes=config.limits.max_message_bytes
                ),
            ),
            "Sessions": SessionsService(
                registry=self._registry,
                keeper=self._keeper,
                readers=self._readers,
                transfer=Transfer(registry=self._registry, keeper=self._keeper),
                auditing=self._auditing,
            ),
            "Classification": ClassificationService(registry=self._registry),
            "Filling": FillingService(registry=self._registry),
            "Models": ModelsService(
                registry=self._registry,
                keeper=self._keeper,
                loader=self._loader,
                roots=ModelRoots(config.model_root),
                max_message_bytes=config.limits.max_message_bytes,
            ),
            "Admin": AdminService(
                registry=self._registry,
                tally=Tally(self._keeper),
                border=border,
                metrics=self._metrics,
                drain=self._drain,
                drain_seconds=config.drain_seconds,
            ),
        }
        server = grpc.aio.server(options=_options(config.limits.max_message_bytes))
        handlers = [border.handler(_SERVICES[name], service) for name, service in services.items()]
        server.add_generic_rpc_handlers(tuple(handlers))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
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
