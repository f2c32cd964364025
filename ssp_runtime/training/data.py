"""Training data from files: text for next-token prediction, labelled lines for classification."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssp_runtime.tokenizers import Tokenizer
from ssp_runtime.training.tasks import Labelled


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """`labels` name the classes, sorted; `train` and `heldout` count from 0 in that order."""

    labels: tuple[str, ...]
    train: Labelled
    heldout: Labelled


def read_texts(
    paths: Sequence[Path], tokenizer: Tokenizer, heldout_fraction: float
) -> tuple[list[int], list[list[int]]]:
    """The training stream, each text between its model's marks, and the held-out end of each text.

    Raises:
        ValueError: nothing is held out.
    """
    stream: list[int] = []
    heldout = []
    end = list(tokenizer.eos_ids[:1])
    for path in paths:
        ids = tokenizer.encode(read_text(path))
        cut = int(len(ids) * (1 - heldout_fraction))
        stream += ids[:cut] + end
        heldout.append(ids[cut:])
    if not any(heldout):
        raise ValueError(f"{heldout_fraction:.0%} of texts so short is nothing: raise --heldout-fraction")
    return stream, [ids for ids in heldout if ids]


def read_labelled(path: Path, tokenizer: Tokenizer, heldout_fraction: float) -> LabelledData:
    """Rows of a tab-separated file, label first, then the sequence. A row is held out by a hash of its sequence, so
    that equal ones stay on one side.

    Raises:
        ValueError: a row is not of that form, or one side of the split is empty.
    """
    rows = list(csv.reader(read_text(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not row[1]:
            raise ValueError(f"{path}, line {number}: a label, a tab and a sequence are expected")
    labels = tuple(sorted({label for label, _ in rows}))
    sides: tuple[list[tuple[list[int], int]], list[tuple[list[int], int]]] = ([], [])
    for label, text in rows:
        sides[_is_heldout(text, heldout_fraction)].append((tokenizer.encode(text), labels.index(label)))
    if not sides[0] or not sides[1]:
        raise ValueError(f"{path} has too few rows to hold {heldout_fraction:.0%} out")
    train, heldout = (Labelled(sequences=[s for s, _ in side], labels=[c for _, c in side]) for side in sides)
    return LabelledData(labels=labels, train=train, heldout=heldout)


def _is_heldout(text: str, fraction: float) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < fraction * 2**64


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
