"""What the benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro

from ssp_client.bench.report import write_json
from ssp_client.cli.output import note
from ssp_client.types import ModelInfo, Task

Folder: TypeAlias = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]


def choose_generator(models: Sequence[ModelInfo]) -> ModelInfo:
    """The server's only model that generates.

    Raises:
        ValueError: it has none, or several.
    """
    generating = [model for model in models if model.task is Task.GENERATE]
    if len(generating) == 1:
        return generating[0]
    names = ", ".join(model.name for model in generating)
    raise ValueError(f"choose a model with --model: {names}" if names else "the server has no model that generates")


def write_results(path: Path | None, command: Any, kind: str, model: ModelInfo, results: Any) -> None:
    """Writes the JSON file the user asked for, if so."""
    if path is None:
        return
    write_json(path, kind=kind, model=model, settings=asdict(command), results=results)
    note(f"wrote {path}")
