"""Optional packages, imported when needed."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def need(module: str, extra: str) -> Any:
    """Imports a module of an extra.

    Raises:
        ValueError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise ValueError(f"this needs {package}, which is not installed; pip install 'ssp[{extra}]'") from error


def progress_bar(*, total: int | None, unit: str, enabled: bool = True) -> Any:
    """A tqdm bar on stderr, shown only if that is a terminal."""
    return need("tqdm", "cli").tqdm(
        total=total, unit=unit, unit_scale=True, file=sys.stderr, disable=not (enabled and sys.stderr.isatty())
    )
