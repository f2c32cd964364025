"""`ssp sessions export` and `ssp sessions import`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro
from tyro.conf import Positional

from ssp_client.cli.connection import ModelName, OptionalFloat, Server
from ssp_client.cli.output import in_bytes, note
from ssp_client.types import StateDtype

File: TypeAlias = Annotated[Positional[Path], tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a session's state to a file, from which any server of the model can go on.

    examples:
      ssp sessions export ID chat.safetensors
      ssp sessions export ID small.safetensors --dtype bfloat16
    """

    session_id: Annotated[Positional[str], tyro.conf.arg(metavar="ID")]
    """The session; it stays as it is."""
    file: File
    """Appears whole or not at all."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ""
    """Export this checkpoint instead of where the session stands."""
    dtype: Annotated[StateDtype | None, tyro.conf.arg(help_behavior_hint="(default: exact)")] = None
    """Convert the state's numbers; half the bytes, and the session goes on a little differently."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Tells what was written."""
        with self.server.client() as client:
            session = client.session(self.session_id)
            position = session.export(self.file, checkpoint=self.checkpoint, dtype=self.dtype)
        note(f"{self.file}: {in_bytes(self.file.stat().st_size)}, position {position}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Import:
    """Open a session from a file that `ssp sessions export` wrote, and print its id.

    examples:
      ID=$(ssp sessions import chat.safetensors --target other:50051)
    """

    file: File
    """The exported state."""
    model: ModelName = ""
    """The model; may be left out if one of the server's has the weights that the file names."""
    routing_key: str = ""
    """First part of the id, for routers: 1 to 64 letters, digits, - or _."""
    ttl: OptionalFloat = None
    """Seconds after which it is closed if nobody uses it; without it is kept until it is closed."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the id."""
        with self.server.client() as client:
            session = client.import_session(self.file, self.model, routing_key=self.routing_key, ttl=self.ttl)
            print(session.id)
            note(f"session at position {session.position}")
        return 0
