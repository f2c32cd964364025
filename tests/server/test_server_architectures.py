"""Every architecture that generates is served: its sessions are streamed, spilled to host memory, and continued."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ssp_client import Client, SamplingParams, Tier
from ssp_client.session import Session
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.models.architectures import ARCHITECTURES
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess
from tests.server.tiny_artifacts import write_architecture

NAMES = [name for name in ARCHITECTURES if not name.startswith("bidirectional")]
TEXT = "the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@pytest.fixture(scope="module")
def artifacts(folder: Path) -> dict[str, Artifact]:
    return {name: write_architecture(folder / name, name) for name in NAMES}


@pytest.fixture(scope="module")
def client(folder: Path, artifacts: dict[str, Artifact]) -> Iterator[Client]:
    options: list[str | Path] = ["--models", *(folder / name for name in artifacts), "--slots", "1"]
    with ServerProcess(*options) as server, Client(server.target, timeout=PATIENCE) as made:
        made.wait_until_ready(PATIENCE, service="ssp.v1.Generation")
        yield made


@pytest.mark.parametrize("name", NAMES)
def test_its_sessions_are_streamed_spilled_and_continued(
    name: str, client: Client, artifacts: dict[str, Artifact]
) -> None:
    with client.open_session(model=name) as session, client.open_session(model=name) as other:
        session.append(TEXT)
        said: list[int] = []
        for _ in range(3):
            said += _streamed(session)
            other.complete("x", max_tokens=2)  # there is but one slot
            assert session.info().tier is Tier.HOST
        Greedy(artifacts[name].language_model).check(said, [0, *TEXT.encode()])


def _streamed(session: Session) -> list[int]:
    stream = session.generate(sampling_params=SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=6))
    return [token for delta in stream for token in delta.token_ids]
