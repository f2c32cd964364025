"""Numbers that other people's code produced, found as ../shared/oracles/README.md says."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("SSP_ORACLES", ROOT.parent / "shared" / "oracles"))


def folder() -> Path:
    """Where they are. Where they are absent the test is skipped; with CI=true it fails."""
    if not FOLDER.is_dir():
        _absent()
    return FOLDER


def everything(file: str) -> dict[str, Any]:
    """All values of an oracle file by their full names."""
    folder()
    return _read(file)


def entry(file: str, name: str) -> dict[str, Any]:
    """One entry of an oracle file as nested dictionaries, its tensors and its other values together."""
    folder()
    found: dict[str, Any] = {}
    for key, value in _read(file).items():
        first, *path, last = key.split("//")
        if first == name:
            inner = found
            for part in path:
                inner = inner.setdefault(part, {})
            inner[last] = value
    assert found, f"the oracles hold no entry {name!r} in {file}"
    return found


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute one."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    return float((actual.detach() - expected).abs().max())


def _absent() -> None:
    reason = f"no oracles in {FOLDER}: set SSP_ORACLES to the folder that holds them"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def _read(file: str) -> dict[str, Any]:
    values = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    return {**cast(dict[str, Any], values), **load_file(FOLDER / f"{file}.safetensors")}
