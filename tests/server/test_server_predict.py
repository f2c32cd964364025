"""A model over numbers is served as one over tokens is, but for what needs tokens."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssp_client import Client, InputKind, InvalidArgument, Task
from ssp_client.session import Session
from ssp_runtime.formats.artifact import Artifact
from tests.server.own_outputs import Rows, close, forward
from tests.server.server_process import PATIENCE, ServerProcess
from tests.server.tiny_artifacts import write_forecaster

VECTORS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def forecaster(models: Path) -> Artifact:
    return write_forecaster(models / "forecaster")


@pytest.fixture(scope="module")
def forecasting(managed: ServerProcess, forecaster: Artifact) -> Iterator[Client]:  # noqa: ARG001  # written
    """A client of a server that has the forecaster beside a model that writes and one that classifies."""
    with Client(managed.target, token="admin-token", timeout=PATIENCE) as client:
        client.load_model("forecaster", "forecaster")
        yield client
        client.unload_model("forecaster", force=True)


@pytest.fixture
def forecasts(forecaster: Artifact) -> Rows:
    return forward(forecaster.sequence_regressor, torch.from_numpy(VECTORS))


@pytest.fixture
def series(forecasting: Client) -> Iterator[Session]:
    with forecasting.open_session("forecaster") as made:
        yield made


def test_what_is_told_of_it(forecasting: Client, series: Session) -> None:
    info = forecasting.model("forecaster")
    assert (info.task, info.input_kind, info.form) == (Task.PREDICT, InputKind.VALUES, "recurrent")
    assert (info.d_input, info.d_output, info.vocab_size) == (3, 2, 0)
    assert info.state_bytes_per_session == series.info().state_bytes > 0


def test_vectors_are_answered_with_predictions(series: Session, forecasts: Rows) -> None:
    with series.step() as stream:
        found = [stream.send(VECTORS[:1]), stream.send(VECTORS[1:])]
    assert close(np.concatenate(found), forecasts) and series.position == len(VECTORS)


def test_it_appends_forks_keeps_and_rewinds(series: Session, forecasts: Rows) -> None:
    assert series.append(VECTORS[:10]).prompt_tokens == series.position == 10
    series.checkpoint("ten")
    with series.fork() as forked, forked.step() as stream:
        assert close(stream.send(VECTORS[10:20]), forecasts[10:20])
    for _ in range(2):
        with series.step() as stream:
            assert close(stream.send(VECTORS[10:]), forecasts[10:])
        series.rewind("ten")


def test_a_retried_append_advances_once(series: Session) -> None:
    for _ in range(2):
        series.append(VECTORS, request_id="the-same", expected_position=0)
    assert series.info().status.position == len(VECTORS)


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda _, session: session.generate_text(max_tokens=1), "it can only append and step"),
        (lambda client, _: client.generate_text("a", model="forecaster"), "it can only append and step"),
        (lambda client, _: client.score(["a"], model="forecaster"), "it can only append and step"),
        (lambda _, session: session.peek(["a"]), "it can only append and step"),
        (lambda client, _: client.classify(["a"], model="forecaster"), "does not classify; it is made to predict"),
        (lambda _, session: session.append("a"), "takes numbers, not text"),
        (lambda _, session: session.append([1, 2]), "3 finite numbers"),
        (lambda _, session: session.append(VECTORS[:, :2]), "3 finite numbers"),
        (lambda _, session: session.append(VECTORS * np.float32(np.inf)), "3 finite numbers"),
        (lambda _, session: session.step(top_logprobs=2).send(VECTORS), "no likeliest tokens"),
    ],
)
def test_what_it_cannot_do(forecasting: Client, series: Session, ask: Any, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        ask(forecasting, series)


def test_a_model_that_writes_is_meant_where_none_is_named(forecasting: Client) -> None:
    with forecasting.open_session() as session:
        assert session.info().model == "writer"


def test_the_command(managed: ServerProcess, series: Session, forecasts: Rows, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("user-token")
    (tmp_path / "series.csv").write_text("\n".join(",".join(map(str, row)) for row in VECTORS[:30]) + "\n\n")
    run = command(managed, tmp_path, series.id, str(tmp_path / "series.csv"))
    assert run.returncode == 0, run.stderr
    lines = [list(map(float, line.split(","))) for line in run.stdout.splitlines()]
    assert close(np.array(lines, np.float32), forecasts[:30]) and "position 30" in run.stderr
    piped = command(managed, tmp_path, series.id, "-", ",".join(map(str, VECTORS[30])))
    assert close(np.array([piped.stdout.strip().split(",")], np.float32), forecasts[30:31])
    for text, why in (
        ("1,2,3\n1,2", "line 2 has 2 numbers, and those before have 3"),
        ("1,a,3", "line 1 is not numbers"),
    ):
        failed = command(managed, tmp_path, series.id, "-", text)
        assert failed.returncode == 1 and f"error: stdin, {why}" in failed.stderr


def command(server: ServerProcess, folder: Path, *arguments: str) -> Any:
    *positional, given = arguments if len(arguments) == 3 else (*arguments, "")
    argv = ["step", *positional, "--target", server.target, "--token-file", str(folder / "token")]
    ssp = Path(sys.executable).with_name("ssp")
    return subprocess.run([ssp, *argv], input=given, capture_output=True, text=True, timeout=PATIENCE, check=False)
