"""One server for all these tests, with a model that writes bytes and one that reads DNA; and clients of it."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssp_client import Client
from ssp_runtime.formats.artifact import Artifact
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess
from tests.server.tiny_artifacts import write_architecture, write_reader, write_writer

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


@pytest.fixture(scope="session")
def managed(
    models: Path,
    writer: Artifact,  # noqa: ARG001  # written
    reader: Artifact,  # noqa: ARG001  # written
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server with an administrator, who may load whatever is in `models`."""
    tokens = tmp_path_factory.mktemp("tokens")
    for who in ("user", "admin"):
        (tokens / who).write_text(f"{who}-token\n")
    arguments = ("--token-file", tokens / "user", "--admin-token-file", tokens / "admin", "--model-root", models)
    with ServerProcess("--models", models / "writer", models / "reader", "--drain-seconds", "2", *arguments) as made:
        yield made


@pytest.fixture
def admin(managed: ServerProcess) -> Iterator[Client]:
    with Client(managed.target, token="admin-token", timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def user(managed: ServerProcess) -> Iterator[Client]:
    with Client(managed.target, token="user-token", timeout=PATIENCE, recovery_seconds=0) as made:
        yield made


@pytest.fixture(scope="session")
def twins(
    models: Path,
    writer: Artifact,  # noqa: ARG001  # written
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two servers with one key to seal states, and the tenants `one` and `two`. They call the writer `scribe`, and have
    another model whose states do not fit into their messages."""
    write_architecture(models / "griffin", "griffin")
    keys = tmp_path_factory.mktemp("keys")
    (keys / "seal").write_bytes(secrets.token_bytes(32))
    (keys / "tenants").write_text("one:token-one\ntwo:token-two\n")
    options = ("--seal-key-file", keys / "seal", "--token-file", keys / "tenants", "--max-message-bytes", "48000")
    arguments = ("--models", f"scribe={models / 'writer'}", models / "griffin", *options)
    with ServerProcess(*arguments) as first, ServerProcess(*arguments) as second:
        yield first, second


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSP_TARGET", "SSP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
