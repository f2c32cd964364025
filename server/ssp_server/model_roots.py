"""Which model folders clients may have loaded."""

import os
from collections.abc import Iterable
from pathlib import Path

from ssp_runtime.errors import Forbidden, InvalidRequest

_MAX_LENGTH = 1024


class ModelRoots:
    """Folders with models below them, as the operator named them."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = [root.resolve() for root in roots]

    def find(self, text: str) -> Path:
        """The folder that a client named, absolute or below a root.

        Raises:
            InvalidRequest: the text is no path.
            Forbidden: it lies elsewhere, links and `..` followed; nothing is told of what there is.
        """
        if not 1 <= len(text) <= _MAX_LENGTH or "\0" in text:
            raise InvalidRequest(f"folder must be a path on the server's disk, of at most {_MAX_LENGTH} characters")
        if not self._roots:
            raise Forbidden("this server loads no models on request; --model-root FOLDER allows those below a folder")
        inside = [folder for root in self._roots if _lies_within(folder := (root / text).resolve(), root)]
        if not inside:
            raise Forbidden("the folder is not below one that this server's --model-root allows")
        return next((folder for folder in inside if os.access(folder, os.R_OK)), inside[0])


def _lies_within(folder: Path, root: Path) -> bool:
    """With everything in it, which it may be loaded from."""
    inside = folder.is_relative_to(root)
    return inside and all(path.resolve().is_relative_to(root) for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # what cannot be listed is not loaded either
        return []
