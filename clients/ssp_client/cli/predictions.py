"""Predictions as a table, CSV or JSON lines, row by row."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from typing import TextIO

from ssp_client.types import Prediction


class PredictionWriter(ABC):
    """Writes one row per prediction: name, label, probability, one per class, length."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun = False

    def write(self, name: str, prediction: Prediction) -> None:
        """The next row; the first one brings the header."""
        if not self._begun:
            self._begun = True
            self._header(prediction.labels)
        self._row(name, prediction)

    @abstractmethod
    def _header(self, labels: tuple[str, ...]) -> None: ...

    @abstractmethod
    def _row(self, name: str, prediction: Prediction) -> None: ...


class TableWriter(PredictionWriter):
    """Aligned columns for readers; long names are shortened."""

    _NAME = 24

    def _header(self, labels: tuple[str, ...]) -> None:
        self._widths = [max(6, len(label)) for label in labels]
        classes = "  ".join(label.rjust(width) for label, width in zip(labels, self._widths, strict=True))
        self._label = max(5, *map(len, labels)) if labels else 5
        self._line("NAME", "LABEL", "PROBABILITY", classes, "LENGTH")

    def _row(self, name: str, prediction: Prediction) -> None:
        numbers = zip(prediction.probabilities, self._widths, strict=True)
        classes = "  ".join(f"{probability:.4f}".rjust(width) for probability, width in numbers)
        short = name if len(name) <= self._NAME else name[: self._NAME - 1] + "…"
        self._line(short, prediction.label, f"{prediction.probability:.4f}", classes, str(prediction.num_tokens))

    def _line(self, name: str, label: str, probability: str, classes: str, length: str) -> None:
        cells = (name.ljust(self._NAME), label.ljust(self._label), probability.rjust(11), classes, length.rjust(8))
        print("  ".join(cells), file=self._file)


class CsvWriter(PredictionWriter):
    """Comma-separated, with a header."""

    def _header(self, labels: tuple[str, ...]) -> None:
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(("name", "label", "probability", *labels, "length"))

    def _row(self, name: str, prediction: Prediction) -> None:
        numbers = [f"{number:.6g}" for number in (prediction.probability, *prediction.probabilities)]
        self._csv.writerow((name, prediction.label, *numbers, prediction.num_tokens))


class JsonLinesWriter(PredictionWriter):
    """One object per line."""

    def _header(self, labels: tuple[str, ...]) -> None:
        pass

    def _row(self, name: str, prediction: Prediction) -> None:
        row = {
            "name": name,
            "label": prediction.label,
            "probability": prediction.probability,
            "probabilities": dict(zip(prediction.labels, prediction.probabilities, strict=True)),
            "length": prediction.num_tokens,
        }
        print(json.dumps(row, ensure_ascii=False), file=self._file)


WRITERS: dict[str, type[PredictionWriter]] = {"table": TableWriter, "csv": CsvWriter, "jsonl": JsonLinesWriter}
