from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from ssp_client.cli import main

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure

FASTA = b">one first\nACG\n>two\nAC\nGT\n>three\nACGTA\n"
FASTQ = b"@q1\nACG\n+\n!!!\n@q2\nAC\n+\n!!\n"

pytestmark = pytest.mark.usefixtures("server")


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.mark.parametrize("name", ["reads.fa", "reads.fasta.gz", "unnamed", "unnamed.gz"])
def test_fasta_plain_and_gzipped(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(FASTA) if name.endswith(".gz") else FASTA)
    assert main(["classify", str(path), "--output", "csv"]) == 0
    found = rows(capsys)
    assert list(found[0]) == ["name", "label", "probability", "even", "odd", "length"]
    assert [(row["name"], row["label"], row["length"]) for row in found] == [
        ("one", "odd", "3"),
        ("two", "even", "4"),
        ("three", "odd", "5"),
    ]
    assert found[0]["probability"] == found[0]["odd"] == "0.75"


def test_fastq_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    buffered = io.BufferedReader(io.BytesIO(gzip.compress(FASTQ)))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffered))
    assert main(["classify", "-", "--output", "jsonl"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in found] == ["q1", "q2"]
    assert found[0]["probabilities"] == {"even": 0.25, "odd": 0.75}


def test_lines_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sequences.txt"
    path.write_text("ACGT\n\nAC\r\nA")
    assert main(["classify", str(path)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "LABEL", "PROBABILITY", "even", "odd", "LENGTH"]
    assert [line.split()[:2] for line in lines] == [["1", "even"], ["3", "even"], ["4", "odd"]]
    assert len({len(line) for line in (header, *lines)}) == 1


def test_several_files_in_many_batches(tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.fa").write_bytes(FASTA)
    files = [str(tmp_path / "a.fa"), str(tmp_path / "b.fa")]
    assert main(["classify", *files, "--output", "csv", "--batch-size", "2", "--model", "parity"]) == 0
    assert [row["name"] for row in rows(capsys)] == ["one", "two", "three"] * 2
    assert len(server.requests["ClassifyMany"]) == 3


def test_a_file_appears_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.fa").write_bytes(FASTA)
    out = tmp_path / "predictions.csv"
    assert main(["classify", str(tmp_path / "a.fa"), "--output", "csv", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 4 and capsys.readouterr().out == ""
    assert out.stat().st_mode & 0o777 == (tmp_path / "a.fa").stat().st_mode & 0o777


def test_a_failure_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.fa").write_bytes(FASTA + b">four\nACXG\n>five\nA\n")
    out = tmp_path / "predictions.csv"
    out.write_text("what was there")
    assert main(["classify", str(tmp_path / "a.fa"), "--output", "csv", "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}/a.fa, record four: ") and "letter 'X'" in err
    assert "--invalid skip" in err
    assert out.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fa", "predictions.csv"]


def test_skipping_reports_what_was_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">bad\nX\n" + FASTA + b">worse\nACNNT\n")
    assert main(["classify", str(path), "--output", "csv", "--invalid", "skip"]) == 0
    out, err = capsys.readouterr()
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == ["one", "two", "three"]
    assert f"skipped {path}, record bad: " in err and "record worse" in err
    assert err.endswith("skipped 2 of 5 sequences\n")


def test_skipping_everything_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.fa").write_bytes(b">bad\nX\n>worse\nY\n")
    assert main(["classify", str(tmp_path / "a.fa"), "--invalid", "skip"]) == 1
    assert "none of the 2 sequences" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.fa", b"", "empty.fa holds no sequence"),
        ("empty.txt", b"\n\n", "empty.txt holds no sequence"),
        ("lines.fa", b"ACGT\n", "lines.fa is not FASTA"),
        ("cut.fq", b"@q1\nACG\n+\n!!\n", "cut.fq is not FASTQ"),
        ("latin.txt", b"ACGT\n\xe9\n", "latin.txt, line 2 is not UTF-8 text"),
        ("cut.fa.gz", gzip.compress(FASTA * 99)[:-20], "cut.fa.gz is a damaged gzip file"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, name: str, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["classify", str(tmp_path / name)]) == 1
    err = capsys.readouterr().err
    assert words in err and err.startswith("error: ") and err.count("\n") == 1


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(tmp_path / "none.fa")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/none.fa: No such file or directory\n"


def test_other_failures_name_no_record(tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.fa").write_bytes(FASTA)
    server.failures["ClassifyMany"] = [Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="queue full")]
    assert main(["classify", str(tmp_path / "a.fa")]) == 1
    assert capsys.readouterr().err == "error: queue full\n"
