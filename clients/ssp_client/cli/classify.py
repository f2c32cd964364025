"""`ssp classify`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from ssp_client.cli.connection import ModelName, OptionalInt, OptionalPath, Server
from ssp_client.cli.output import note, text_file
from ssp_client.cli.predictions import WRITERS
from ssp_client.cli.records import Format, Record, read_all
from ssp_client.client import Client
from ssp_client.errors import InvalidSequence
from ssp_client.extras import progress_bar
from ssp_client.types import Prediction

# So many skipped records are named on stderr, the others only counted.
NAMED = 10


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Classify every sequence of some files.

    examples:
      ssp classify promoters.fasta.gz
      ssp classify reads.fastq --output csv --out predictions.csv --invalid skip
      printf 'ACGT\\nGGCC\\n' | ssp classify - --output jsonl

    FASTA and FASTQ, also gzipped, are told by their names or contents; any other file is one sequence per line.
    """

    files: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[FILE ...]", help_behavior_hint="")] = ("-",)
    """Files of sequences; - (or none) is stdin."""
    model: ModelName = ""
    """The model; may be left out if the server has one that classifies."""
    format: Format = "auto"
    """What the files are."""
    output: Literal["table", "csv", "jsonl"] = "table"
    """How predictions are written."""
    out: OptionalPath = None
    """Write to this file, which appears only when all is done, instead of stdout."""
    batch_size: OptionalInt = None
    """Sequences per message."""
    invalid: Literal["fail", "skip"] = "fail"
    """What to do about a sequence the model cannot read."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Writes one row per sequence; 1 if every sequence was skipped."""
        skipped: list[Record] = []
        written = 0
        shown = self.out is not None or not sys.stdout.isatty()
        with (
            self.server.client() as client,
            text_file(self.out) as file,
            progress_bar(total=None, unit="seq", enabled=shown) as bar,
        ):
            writer = WRITERS[self.output](file)
            for record, outcome in self._outcomes(client):
                bar.update()
                if isinstance(outcome, Prediction):
                    writer.write(record.name, outcome)
                    written += 1
                else:
                    _skip(record, outcome, skipped)
            if not written:
                raise ValueError(f"the model could read none of the {len(skipped)} sequences")
        if skipped:
            note(f"skipped {len(skipped)} of {written + len(skipped)} sequences")
        return 0

    def _outcomes(self, client: Client) -> Iterator[tuple[Record, Prediction | InvalidSequence]]:
        waiting: deque[Record] = deque()

        def sequences() -> Iterator[str]:
            for record in read_all(self.files or ("-",), self.format):
                waiting.append(record)
                yield record.sequence

        try:
            for outcome in self._classify(client, sequences()):
                yield waiting.popleft(), outcome
        except InvalidSequence as error:
            raise ValueError(f"{_told(waiting[0], error)} (--invalid skip goes on without it)") from error

    def _classify(self, client: Client, sequences: Iterator[str]) -> Iterator[Prediction | InvalidSequence]:
        if self.invalid == "skip":
            return client.classify_many(sequences, model=self.model, batch_size=self.batch_size, return_exceptions=True)
        return client.classify_many(sequences, model=self.model, batch_size=self.batch_size)


def _skip(record: Record, error: InvalidSequence, skipped: list[Record]) -> None:
    skipped.append(record)
    if len(skipped) <= NAMED:
        note(f"skipped {_told(record, error)}")


def _told(record: Record, error: InvalidSequence) -> str:
    return f"{record.source}, record {record.name}: {error.message}"
