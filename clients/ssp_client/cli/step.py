"""`ssp step`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from tyro.conf import Positional

from ssp_client.cli.connection import Server
from ssp_client.cli.output import note
from ssp_client.cli.sessions import SessionId
from ssp_client.steps import Outputs

_LINES = 256  # of a file, sent together


@dataclass(frozen=True, kw_only=True)
class Step:
    """Feed numbers to a session, and print what the model predicts after each line of them.

    examples:
      ID=$(ssp sessions open --model forecaster)
      ssp step ID series.csv > predictions.csv
      sensor | ssp step ID - | actuator        (each line is answered before the next is read)
    """

    session_id: SessionId
    """The session, of a model over numbers."""
    file: Annotated[Positional[str], tyro.conf.arg(metavar="[FILE]")] = "-"
    """Lines of numbers with commas between them; - reads them from stdin."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints a line for each."""
        with self.server.client() as client:
            session = client.session(self.session_id)
            with session.step() as stream:
                for values in self._inputs():
                    _print(stream.send(values))
        note(f"session at position {session.position}")
        return 0

    def _inputs(self) -> Iterator[Outputs]:
        if self.file == "-":
            yield from _read(sys.stdin, "stdin", at_once=1)
            return
        with Path(self.file).open(encoding="utf-8") as lines:
            yield from _read(lines, self.file, at_once=_LINES)


def _read(lines: Iterable[str], source: str, *, at_once: int) -> Iterator[Outputs]:
    """Vectors (L, width); empty lines are passed over."""
    filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    width = None
    while batch := list(islice(filled, at_once)):
        rows = [_numbers(line, source, number) for number, line in batch]
        for (number, _), row in zip(batch, rows, strict=True):
            width = width or len(row)
            if len(row) != width:
                raise ValueError(f"{source}, line {number} has {len(row)} numbers, and those before have {width}")
        yield np.array(rows, np.float32)


def _numbers(line: str, source: str, number: int) -> list[float]:
    try:
        return [float(text) for text in line.split(",")]
    except ValueError:
        raise ValueError(f"{source}, line {number} is not numbers with commas between them") from None


def _print(outputs: Outputs) -> None:
    for row in outputs:
        print(",".join(map(str, row)))
    sys.stdout.flush()
