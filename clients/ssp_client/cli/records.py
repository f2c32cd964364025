"""Sequences from files: FASTA, FASTQ (both also gzipped) or one per line."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal, TypeAlias, cast

from ssp_client.extras import need

Format: TypeAlias = Literal["auto", "lines", "fasta", "fastq"]

Readable: TypeAlias = BufferedReader | gzip.GzipFile

_SUFFIXES: dict[str, Format] = {
    ".fa": "fasta", ".fasta": "fasta", ".fna": "fasta", ".ffn": "fasta", ".faa": "fasta",
    ".fq": "fastq", ".fastq": "fastq", ".txt": "lines",
}  # fmt: skip
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One named sequence and the file it is from."""

    name: str
    sequence: str
    source: str


def read_all(paths: Sequence[str], form: Format) -> Iterator[Record]:
    """The records of all files in order; `-` is stdin.

    Raises:
        ValueError: a file holds no sequence, or is not what `form` says.
        OSError: a file cannot be read.
    """
    for path in paths:
        source = "stdin" if path == "-" else path
        empty = True
        for name, sequence in _read(path, source, form):
            empty = False
            yield Record(name=name, sequence=sequence, source=source)
        if empty:
            raise ValueError(f"{source} holds no sequence")


def _read(path: str, source: str, form: Format) -> Iterator[tuple[str, str]]:
    with _opened(path) as file:
        chosen = _guess(path, file) if form == "auto" else form
        try:
            if chosen == "lines":
                yield from _lines(file, source)
            else:
                yield from _dna(file if path == "-" else path, source, chosen)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{source} is a damaged gzip file: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[Readable]:
    with ExitStack() as stack:
        stdin = cast(BufferedReader, sys.stdin.buffer)
        file = stdin if path == "-" else stack.enter_context(Path(path).open("rb"))
        yield gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _GZIP else file


def _guess(path: str, file: Readable) -> Format:
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    start = file.peek(4096)[:4096].lstrip()
    if start.startswith(b">"):
        return "fasta"
    lines = start.split(b"\n", 3)
    return "fastq" if start.startswith(b"@") and len(lines) > 2 and lines[2].startswith(b"+") else "lines"


def _dna(file: Readable | str, source: str, form: Format) -> Iterator[tuple[str, str]]:
    dnaio = need("dnaio", "cli")
    try:
        with dnaio.open(file, fileformat=form, open_threads=0) as reader:
            for record in reader:
                yield record.id, record.sequence
    except (dnaio.FileFormatError, dnaio.UnknownFileFormat) as error:
        raise ValueError(f"{source} is not {form.upper()}: {error}") from error


def _lines(file: Readable, source: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(file, 1):
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{source}, line {number} is not UTF-8 text") from error
        if text:
            yield str(number), text
