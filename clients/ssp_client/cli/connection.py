"""The flags about the server that every command has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro

from ssp_client.aio import AsyncClient
from ssp_client.channel import default_target
from ssp_client.client import Client

_SERVERS = "(default: the server's)"
OptionalInt: TypeAlias = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_SERVERS)]
OptionalFloat: TypeAlias = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=_SERVERS)]
ModelName: TypeAlias = Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
OptionalPath: TypeAlias = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where the server is and who asks."""

    target: str = field(default_factory=default_target)
    """Address of the server, HOST:PORT; SSP_TARGET sets the default."""
    timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="(default: none)")] = None
    """Give up a call after this long."""
    tls: bool = False
    """Use TLS with the system's root certificates."""
    tls_ca: OptionalPath = None
    """Use TLS with the root certificates (PEM) of this file."""
    token_file: OptionalPath = None
    """Send the token in this file; without it, the one in SSP_TOKEN."""

    def client(self, *, timeout: float | None = None) -> Client:
        """A client; `timeout` where the user gave none."""
        return Client(**self._arguments(timeout))

    def async_client(self) -> AsyncClient:
        """A client for asyncio."""
        return AsyncClient(**self._arguments(None))

    def _arguments(self, timeout: float | None) -> dict[str, Any]:
        token = self.token_file.read_text("utf-8").strip() if self.token_file else None
        seconds = timeout if self.timeout is None else self.timeout
        return {
            "target": self.target,
            "tls": self.tls,
            "root_certificates": self.tls_ca,
            "token": token,
            "timeout": seconds,
        }
