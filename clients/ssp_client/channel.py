"""Where the server is and how to talk to it: target, TLS, token, keepalive, retries."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import grpc
import grpc.aio

DEFAULT_TARGET = "127.0.0.1:50051"
MAX_RECEIVE_BYTES = 64 * 1024 * 1024

# Reads, and mutations that carry a request_id: trying them again never advances a state twice. Generate is not among
# them: gRPC now and then waits for ever for a stream that it began again as a server died. `GenerateStream` does that.
_RETRIED = (
    {"service": "ssp.v1.Models", "method": "ListModels"},
    {"service": "ssp.v1.Models", "method": "GetModel"},
    {"service": "ssp.v1.Admin", "method": "GetLoads"},
    {"service": "ssp.v1.Generation", "method": "Score"},
    {"service": "ssp.v1.Filling", "method": "Fill"},
    {"service": "ssp.v1.Sessions", "method": "OpenSession"},
    {"service": "ssp.v1.Sessions", "method": "Append"},
    {"service": "ssp.v1.Sessions", "method": "Fork"},
    {"service": "ssp.v1.Sessions", "method": "Peek"},
    {"service": "ssp.v1.Sessions", "method": "ExportState"},
    {"service": "ssp.v1.Sessions", "method": "ImportState"},
    {"service": "ssp.v1.Sessions", "method": "GetSession"},
    {"service": "ssp.v1.Sessions", "method": "ListSessions"},
)
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def default_target() -> str:
    """`SSP_TARGET` of the environment, else 127.0.0.1:50051."""
    return os.environ.get("SSP_TARGET") or DEFAULT_TARGET


def is_loopback(target: str) -> bool:
    """Whether what is sent to `target` stays on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").lstrip("/").rpartition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def channel_options(target: str) -> list[tuple[str, str | int]]:
    """gRPC's settings of a connection to `target`."""
    return [
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),  # keepalive alone does not notice a frozen server
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.bdp_probe", 0),  # a reader that pauses then holds the server back early
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        ("grpc.max_send_message_length", -1),  # the server's limit is the one that holds
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0 if is_loopback(target) else 1),
        ("grpc.primary_user_agent", f"ssp-python/{metadata.version('ssp')}"),
        ("grpc.service_config", json.dumps({"methodConfig": [{"name": _RETRIED, "retryPolicy": _RETRY_POLICY}]})),
    ]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where a server is and who asks.

    Raises:
        ValueError: the target is not HOST:PORT, a file of certificates cannot be read, or a token would travel
            in the clear.
    """

    target: str = field(default_factory=default_target)
    # TLS with the system's root certificates, or with `root_certificates` (PEM, or a file of it).
    tls: bool = False
    root_certificates: bytes | str | Path | None = None
    # Sent as `authorization: Bearer ...`; None takes `SSP_TOKEN` of the environment.
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not is_loopback(self.target) and not self.target.rpartition(":")[2].isdecimal():
            raise ValueError(
                f"{self.target!r} is not a server's address; write HOST:PORT, for example {DEFAULT_TARGET}"
            )
        if self._token and not self.secure and not is_loopback(self.target):
            raise ValueError(f"a token is sent to {self.target} only over TLS; add tls=True or root_certificates")

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.tls or self.root_certificates is not None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Sent with every call."""
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def open(self) -> grpc.Channel:
        """A channel for synchronous calls; it connects with the first of them."""
        options = channel_options(self.target)
        if self.secure:
            return grpc.secure_channel(self.target, self._credentials(), options)
        return grpc.insecure_channel(self.target, options)

    def open_async(self) -> grpc.aio.Channel:
        """A channel for asyncio; to be called on the loop that uses it."""
        options = channel_options(self.target)
        if self.secure:
            return grpc.aio.secure_channel(self.target, self._credentials(), options)
        return grpc.aio.insecure_channel(self.target, options)

    @property
    def _token(self) -> str:
        return os.environ.get("SSP_TOKEN", "") if self.token is None else self.token

    def _credentials(self) -> grpc.ChannelCredentials:
        pem = self.root_certificates
        if isinstance(pem, bytes | None):
            return grpc.ssl_channel_credentials(pem)
        try:
            return grpc.ssl_channel_credentials(Path(pem).read_bytes())
        except OSError as error:
            raise ValueError(f"cannot read the root certificates {pem}: {error.strerror}") from error
