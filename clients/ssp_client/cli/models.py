"""`ssp models`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated

import tyro
from tyro.conf import Positional

from ssp_client.cli.connection import Server
from ssp_client.cli.output import in_bytes, note, table
from ssp_client.types import ModelInfo


@dataclass(frozen=True, kw_only=True)
class List:
    """List the server's models, or tell everything about one.

    examples:
      ssp models
      ssp models NAME
      ssp models --json | jq '.[].name'
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")] = ""
    """Tell about this model."""
    json: bool = False
    """Print JSON."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the table or the model."""
        with self.server.client() as client:
            found = client.model(self.name) if self.name else client.models()
        if self.json:
            print(json.dumps(asdict(found) if isinstance(found, ModelInfo) else [asdict(m) for m in found], indent=2))
        elif isinstance(found, ModelInfo):
            print(_details(found))
        else:
            print(_overview(found))
        return 0


@dataclass(frozen=True, kw_only=True)
class Load:
    """Have the server load a model from a folder on its disk; only for its administrator.

    examples:
      ssp models load chat /models/chat
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """What requests will call it."""
    folder: Annotated[Positional[str], tyro.conf.arg(metavar="FOLDER")]
    """A model folder on the server's disk, below one that its --model-root allows."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Says what was loaded."""
        with self.server.client() as client:
            model = client.load_model(self.name, self.folder)
        note(f"loaded {model.name}: {model.architecture}, {_count(model.num_parameters)} parameters")
        return 0


@dataclass(frozen=True, kw_only=True)
class Unload:
    """Have the server free a model once its calls have ended; only for its administrator.

    examples:
      ssp models unload chat
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """The model."""
    force: bool = False
    """Close its sessions, whose states are lost."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Says how many sessions were closed."""
        with self.server.client() as client:
            closed = client.unload_model(self.name, force=self.force)
        note(f"unloaded {self.name}, {closed} sessions closed")
        return 0


def _overview(models: tuple[ModelInfo, ...]) -> str:
    header = ("NAME", "TASK", "INPUT", "ARCHITECTURE", "FORM", "PARAMETERS", "STATE/SESSION", "DTYPE")
    rows = [
        (m.name, m.task, m.input_kind, m.architecture, m.form, _count(m.num_parameters), _state(m), m.dtype)
        for m in models
    ]
    return table(header, rows, right=(5, 6))


def _details(model: ModelInfo) -> str:
    facts = asdict(model)
    facts.update({f"limits.{name}": value for name, value in facts.pop("limits").items()})
    facts["labels"] = ", ".join(model.labels)
    facts["state_bytes_per_session"] = _state(model)
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in facts.items())


def _state(model: ModelInfo) -> str:
    return in_bytes(model.state_bytes_per_session) if model.state_bytes_per_session else "-"


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
