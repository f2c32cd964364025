"""`ssp-model` from a text file to a verified recurrent model, and its refusals."""

import sys
from pathlib import Path

import pytest

from ssp_runtime import cli
from ssp_runtime.formats.artifact import load
from ssp_runtime.models.architectures import ARCHITECTURES


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["ssp-model", *map(str, arguments)])
    cli.main()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 200)
    return path


SMALL = (
    "--steps",
    "12",
    "--d-model",
    "16",
    "--num-layers",
    "2",
    "--batch-size",
    "4",
    "--threads",
    "1",
    "--no-progress",
)


LANGUAGE_MODELS = [name for name in ARCHITECTURES if not name.startswith("bidirectional")]


@pytest.mark.parametrize("architecture", LANGUAGE_MODELS)
def test_train_convert_inspect_verify(
    architecture: str,
    book: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained, recurrent = tmp_path / "trained", tmp_path / "recurrent"
    run(monkeypatch, "train", "--data", book, "--out", trained, "--architecture", architecture, *SMALL)
    assert "held-out bits per token" in capsys.readouterr().out
    run(monkeypatch, "convert", trained, recurrent)
    shown = capsys.readouterr().out
    assert "recurrent" in shown
    assert "_state" in shown
    run(monkeypatch, "verify", recurrent, "--text", book, "--tokens", "300", "--piece", "70")
    assert "largest difference of logits" in capsys.readouterr().out
    assert load(recurrent).description.form == "recurrent"


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES.keys() - LANGUAGE_MODELS))
def test_a_dna_classifier_is_trained_from_labelled_lines(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "reads.tsv"
    data.write_text(
        "".join(f"{'rich' if n % 2 else 'poor'}\t{('GC' if n % 2 else 'AT') * (n + 3)}\n" for n in range(60))
    )
    out = tmp_path / "reads"
    arguments = ("--task", "classification", "--tokenizer", "dna", "--architecture", architecture)
    run(monkeypatch, "train", "--data", data, "--out", out, "--heldout-fraction", "0.3", *arguments, *SMALL)
    assert "held-out accuracy" in capsys.readouterr().out
    assert load(out).description.labels == ("poor", "rich")
    run(monkeypatch, "convert", out, tmp_path / "recurrent")
    assert load(tmp_path / "recurrent").description.form == "recurrent"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "{tmp}/nowhere"), "no model folder"),
        (("train", "--data", "{tmp}/nowhere.txt", "--out", "{tmp}/out"), "nowhere.txt"),
        (("train", "--data", "{tmp}/latin1.txt", "--out", "{tmp}/out"), "not UTF-8"),
        (("train", "--data", "{tmp}/short.txt", "--out", "{tmp}/out"), "too few"),
        (("train", "--data", "{tmp}/short.txt", "--out", "{tmp}/out", "--task", "classification"), "line 1: a label"),
        (
            ("train", "--data", "{tmp}/long.txt", "--out", "{tmp}/out", "--architecture", "bidirectional-mamba"),
            "only classify",
        ),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9" * 9)
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "long.txt").write_text("long enough " * 1000)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
