"""One server for all these tests, with a model that writes bytes and one that reads DNA; and clients of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ssp_client import Client
from ssp_runtime.formats.artifact import Artifact
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess
from tests.server.tiny_artifacts import write_reader, write_writer

OPTIONS = ("--max-tokens", "20000", "--slots", "16")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts `writer` and `reader`."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def writer(models: Path) -> Artifact:
    return write_writer(models / "writer")


@pytest.fixture(scope="session")
def reader(models: Path) -> Artifact:
    return write_reader(models / "reader")


@pytest.fixture(scope="session")
def greedy(writer: Artifact) -> Greedy:
    """What the writer says by itself, after prompts that begin with its beginning-of-text token 0."""
    return Greedy(writer.language_model)


@pytest.fixture(scope="session")
def server(models: Path, writer: Artifact, reader: Artifact) -> Iterator[ServerProcess]:  # noqa: ARG001  # written
    with ServerProcess("--models", models / "writer", models / "reader", *OPTIONS) as made:
        with Client(made.target) as client:
            client.wait_until_ready(PATIENCE, service="ssp.v1.Generation")
        yield made


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.target, timeout=PATIENCE) as made:
        yield made


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSP_TARGET", "SSP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
