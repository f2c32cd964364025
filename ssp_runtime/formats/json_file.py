"""JSON files that others may have written."""

import json
from pathlib import Path
from typing import Any

from ssp_runtime.errors import ArtifactError

CONFIG_FILE = "config.json"


def read_json(path: Path) -> dict[str, Any]:
    """A file of a model's folder. Raises `ArtifactError` if it is not there, or holds no JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.parent} is no model folder: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read; copy it again: {error}") from error
    if not isinstance(data, dict):
        raise ArtifactError(f"{path} holds no JSON object")
    return data


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Empty if the folder has no such file. Raises `ArtifactError`."""
    return read_json(folder / name) if (folder / name).exists() else {}
