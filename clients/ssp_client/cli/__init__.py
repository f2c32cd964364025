"""The `ssp` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 for a failure, 130 after Ctrl-C (2, usage, exits by itself)."""
    try:
        from ssp_client.cli.app import run
    except ModuleNotFoundError as error:
        if error.name != "tyro":
            raise
        print("error: the command line needs tyro, which is not installed; pip install 'ssp[cli]'", file=sys.stderr)
        return 1
    return run(sys.argv[1:] if argv is None else argv)
