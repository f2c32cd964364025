"""`ssp-model` from a text file to a verified recurrent model, and its refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize(("targets", "numbers"), [((), "2 in, 2 out"), (("--targets", "clean"), "1 in, 1 out")])
def test_a_regressor_is_trained_from_tables(
    targets: tuple[str, ...],
    numbers: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clean = 500 + np.sin(np.arange(2000) / 3)
    noisy = clean + np.random.default_rng(0).normal(0, 0.1, 2000)
    data, trained, recurrent = tmp_path / "signal.csv", tmp_path / "trained", tmp_path / "recurrent"
    np.savetxt(data, np.stack([noisy, clean], axis=1), delimiter=",", header="noisy,clean", comments="")
    arguments = ("--task", "regression", "--architecture", "s5", "--sequence-length", "64", *targets)
    for _ in ("trained", "taken up again at its last step"):
        run(monkeypatch, "train", "--data", data, "--out", trained, *arguments, *SMALL)
        assert "held-out normalized RMSE" in capsys.readouterr().out
    run(monkeypatch, "convert", trained, recurrent)
    assert f"{numbers} at every step" in capsys.readouterr().out
    model = load(recurrent).sequence_regressor
    y, _ = model.step(torch.full((1, model.d_input), 500.0), model.initial_state(1))
    assert torch.allclose(y, torch.tensor(500.0), atol=5), "not in the numbers of the data"


LONG = ("--data", "{tmp}/long.txt", "--out", "{tmp}/out", "--no-progress")
BAD_FLAGS = {
    "--architecture nmae": "no architecture is called 'nmae': there are mamba",
    "--architecture mmaba": "no architecture is called 'mmaba'; did you mean 'mamba'?",
    "--d-model 0": "d_model: Input should be greater than 0",
    "--d-model -3": "d_model: Input should be greater than 0",
    "--d-model 15 --architecture retnet": "15 features cannot be divided among 4 heads; change num_heads or d_model",
    "--d-model 15 --architecture gla": "15 times 0.5 are 7.5 features; change expand_k or d_model",
    "--d-model 12 --architecture retnet": "3 per head is odd: change num_heads or d_model",
    "--num-layers 0": "num_layers: Input should be greater than 0",
    "--dropout -0.5": "dropout: Input should be greater than or equal to 0",
    "--dropout nan": "dropout: Input should be less than 1",
    "--batch-size 0": "batch_size: Input should be greater than 0",
    "--sequence-length 0": "sequence_length: Input should be greater than 0",
    "--threads 0": "threads: Input should be greater than 0",
    "--seed -1": "seed: Input should be greater than or equal to 0",
    "--steps -1": "steps: Input should be greater than or equal to 0",
    "--lr nan": "lr: Input should be a finite number",
    "--lr -1": "lr: Input should be greater than 0",
    "--betas 1 0.9": "betas.0: Input should be less than 1",
    "--clip-norm 0": "clip_norm: Input should be greater than 0",
    "--heldout-fraction 0": "raise --heldout-fraction",
    "--heldout-fraction 2": "heldout_fraction: Input should be less than 1",
}


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
        (("train", "--data", "{tmp}/long.txt", "--out", "{tmp}/out", "--task", "regression"), "series of 0 steps"),
        *((("train", *LONG, *flags.split()), message) for flags, message in BAD_FLAGS.items()),
        (("train", "--data", "{tmp}/long.txt", "--out", "{tmp}/cut", *SMALL), "checkpoint.pt is damaged or of another"),
        (("verify", "{tmp}/nowhere", "--text", "{tmp}/long.txt", "--piece", "0"), "--piece at least 1"),
        (("verify", "{tmp}/nowhere", "--text", "{tmp}/long.txt", "--tokens", "-5"), "--tokens is at least 2"),
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
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("flags", ["--d-modle 16", "--d-model wide", "--task guessing"])
def test_what_is_no_flag_or_no_value_is_said_without_a_traceback(
    flags: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "train", *LONG, *flags.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert flags.split(maxsplit=1)[0] in error
    assert "Traceback" not in error


def test_a_checkpoint_of_another_shape_is_refused(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "--data", book, "--out", tmp_path / "out", *SMALL)
    run(monkeypatch, *arguments)
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments, "--d-model", "8")
    assert "is damaged or of another model: remove it, or change --out" in capsys.readouterr().err
