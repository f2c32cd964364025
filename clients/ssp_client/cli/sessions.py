"""`ssp sessions`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Annotated, TypeAlias

import tyro
from tyro.conf import Positional

from ssp_client.cli.connection import ModelName, OptionalFloat, Server
from ssp_client.cli.output import in_bytes, note, table
from ssp_client.cli.score import scores_table
from ssp_client.types import SessionInfo

CheckpointName: TypeAlias = Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
SessionId: TypeAlias = Annotated[Positional[str], tyro.conf.arg(metavar="ID")]


@dataclass(frozen=True, kw_only=True)
class Open:
    """Open a session and print its id; it stays until it is closed.

    examples:
      ID=$(ssp sessions open --model NAME)
      ssp generate "Once upon a time" --session "$ID"
    """

    model: ModelName = ""
    """The model; may be left out if the server has one that generates."""
    routing_key: str = ""
    """First part of the id, for routers: 1 to 64 letters, digits, - or _."""
    ttl: OptionalFloat = None
    """Seconds after which it is closed if nobody uses it; without it is kept until it is closed."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the id."""
        with self.server.client() as client:
            print(client.open_session(self.model, routing_key=self.routing_key, ttl=self.ttl).id)
        return 0


@dataclass(frozen=True, kw_only=True)
class Append:
    """Fold a text into a session without generating.

    examples:
      ssp sessions append ID "Once upon a time"
      ssp sessions append ID - < book.txt
    """

    session_id: SessionId
    """The session."""
    text: Annotated[Positional[str], tyro.conf.arg(metavar="[TEXT]")] = "-"
    """What to fold in; - reads it from stdin."""
    expected_position: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Refuse unless the session stands exactly here."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the new position."""
        text = sys.stdin.read() if self.text == "-" else self.text
        with self.server.client() as client:
            session = client.session(self.session_id)
            usage = session.append(text, expected_position=self.expected_position)
        note(f"{usage.prompt_tokens} tokens, session at position {session.position}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Open a session that stands where another does, and print its id.

    examples:
      ALTERNATIVE=$(ssp sessions fork ID)
    """

    session_id: SessionId
    """The session to start from; it stays as it is."""
    routing_key: str = ""
    """First part of the new id, for routers: 1 to 64 letters, digits, - or _."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the new id."""
        with self.server.client() as client:
            print(client.session(self.session_id).fork(routing_key=self.routing_key).id)
        return 0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Keep a session's state under a name, or drop one that was kept.

    examples:
      ssp sessions checkpoint ID before-the-end
      ssp sessions checkpoint ID before-the-end --drop
    """

    session_id: SessionId
    """The session."""
    name: CheckpointName
    """1 to 64 letters, digits, ., - or _."""
    drop: bool = False
    """Free the checkpoint of that name."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Tells where the checkpoint is."""
        with self.server.client() as client:
            session = client.session(self.session_id)
            if self.drop:
                session.drop_checkpoint(self.name)
                note(f"dropped {self.name}")
            else:
                note(f"{self.name} is at position {session.checkpoint(self.name).position}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Commit:
    """Have the server save a session now, so that its restart does not lose it."""

    session_id: SessionId
    """The session."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Tells what is saved."""
        with self.server.client() as client:
            note(f"saved up to position {client.session(self.session_id).commit().committed_position}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """Put a session back to a checkpoint; `ssp sessions get ID` lists them."""

    session_id: SessionId
    """The session."""
    name: CheckpointName
    """The checkpoint, which stays."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Tells where the session stands."""
        with self.server.client() as client:
            note(f"session at position {client.session(self.session_id).rewind(self.name).position}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Peek:
    """Tell how likely continuations of a session are; it stays as it is.

    examples:
      ssp sessions peek ID " yes" " no"
    """

    session_id: SessionId
    """The session."""
    texts: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="TEXT [TEXT ...]")]
    """The continuations."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints their log-probabilities, the likeliest first."""
        with self.server.client() as client:
            print(scores_table(self.texts, client.session(self.session_id).peek(self.texts)))
        return 0


@dataclass(frozen=True, kw_only=True)
class Get:
    """Tell where a session stands, as JSON."""

    session_id: SessionId
    """The session."""
    health: bool = False
    """Tell how large the numbers of its state are, too."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints what the server knows."""
        with self.server.client() as client:
            print(_json(client.session(self.session_id).info(with_health=self.health)))
        return 0


@dataclass(frozen=True, kw_only=True)
class List:
    """List sessions, oldest first.

    examples:
      ssp sessions list
      ssp sessions list --model NAME --json      (one object a line)
    """

    model: ModelName = ""
    """Only sessions of this model."""
    json: bool = False
    """Print one JSON object per session."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the table."""
        with self.server.client() as client:
            sessions = client.list_sessions(model=self.model)
            if self.json:
                for session in sessions:
                    print(_json(session))
            else:
                header = ("SESSION", "MODEL", "POSITION", "STATE", "TIER", "BUSY", "LAST USED")
                print(table(header, [_row(session) for session in sessions], right=(2, 3)))
        return 0


@dataclass(frozen=True, kw_only=True)
class Close:
    """End sessions and free their states."""

    session_ids: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="ID [ID ...]")]
    """The sessions."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints where each stood."""
        if not self.session_ids:
            raise ValueError("name the sessions to close; `ssp sessions list` shows them")
        with self.server.client() as client:
            for session_id in self.session_ids:
                note(f"closed {session_id} at position {client.session(session_id).close().position}")
        return 0


def _row(session: SessionInfo) -> tuple[object, ...]:
    used = f"{session.last_used_time:%Y-%m-%d %H:%M:%S}" if session.last_used_time else "-"
    busy = "yes" if session.busy else "no"
    size = in_bytes(session.state_bytes)
    return session.session_id, session.model, session.position, size, session.tier, busy, used


def _json(session: SessionInfo) -> str:
    facts = asdict(session)
    flat = facts.pop("status") | facts
    return json.dumps(flat, default=lambda time: time.isoformat())
