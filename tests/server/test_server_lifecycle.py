"""Starting, refusing to start, letting in only who may, and going away without breaking anything."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch

from ssp_client import Client, FinishReason, ServingStatus, StreamOptions, Unauthenticated, Unavailable
from ssp_client.session import Session
from ssp_client.stream import GenerateStream
from ssp_runtime.formats import artifact
from ssp_runtime.formats.artifact import Artifact
from ssp_server.cli import main
from tests.greedy import Greedy
from tests.server.server_process import COMMAND, PATIENCE, START_PATIENCE, ServerProcess, eventually

LOCAL = ("--port", "0", "--metrics-port", "0")


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `ssp-server serve`, which must refuse with exit code 1; its one line."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [*COMMAND, *map(str, arguments)])
        with pytest.raises(SystemExit) as refused:
            main()
        assert refused.value.code == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        return line

    return run


@pytest.fixture
def folder(models: Path, writer: Artifact, tmp_path: Path) -> Path:  # noqa: ARG001  # written
    """A copy of an artifact, to be spoilt."""
    return Path(shutil.copytree(models / "writer", tmp_path / "spoilt"))


# Artifacts


def test_an_artifact_with_a_flipped_bit_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 1
    weights.write_bytes(data)
    made = subprocess.run(
        [*COMMAND, *LOCAL, "--models", str(folder)], capture_output=True, timeout=START_PATIENCE, text=True, check=False
    )
    assert made.returncode == 1 and "Traceback" not in made.stderr
    assert made.stderr.startswith(f"error: {folder} was changed after it was written") and made.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_artifact_with_a_missing_file_is_refused(folder: Path, name: str, refusal: Callable[..., str]) -> None:
    (folder / name).unlink()
    assert name in refusal("--models", folder, *LOCAL)


def test_an_artifact_with_nan_weights_is_refused(writer: Artifact, folder: Path, refusal: Callable[..., str]) -> None:
    model = artifact.load(folder).model
    with torch.no_grad():
        next(model.parameters()).view(-1)[7] = torch.nan
    artifact.save(folder, model, writer.description)
    assert "holds NaN or infinite values" in refusal("--models", folder, *LOCAL)


@pytest.mark.parametrize(("text", "message"), [("", "no model folder"), ("a file", "cannot be read")])
def test_what_is_no_folder_is_refused(tmp_path: Path, refusal: Callable[..., str], text: str, message: str) -> None:
    path = tmp_path / "thing"
    if text:
        path.write_text(text)
    line = refusal("--models", path, *LOCAL)
    assert message in line and str(path) in line


def test_two_models_of_one_name_are_refused(models: Path, refusal: Callable[..., str]) -> None:
    assert "two models are called 'a'" in refusal("--models", f"a={models}/writer", f"a={models}/reader", *LOCAL)


# Addresses


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        (("--port", "{}", "--metrics-port", "-1"), "127.0.0.1:{} cannot be listened on, perhaps it is in use"),
        (("--port", "0", "--metrics-port", "{}"), "port {} for metrics is in use: choose another with --metrics-port"),
    ],
    ids=["gRPC", "metrics"],
)
@pytest.mark.usefixtures("writer")
def test_a_port_in_use_is_refused(models: Path, taken: int, ports: tuple[str, ...], message: str) -> None:
    arguments = [*COMMAND, *(part.format(taken) for part in ports), "--models", str(models / "writer")]
    made = subprocess.run(arguments, capture_output=True, timeout=START_PATIENCE, text=True, check=False)
    assert made.returncode == 1 and "Traceback" not in made.stderr
    assert f"error: {message.format(taken)}" in made.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_an_address_that_others_can_reach_is_refused(models: Path, refusal: Callable[..., str], host: str) -> None:
    line = refusal("--models", models / "writer", "--host", host, *LOCAL)
    assert f"{host} can be reached from elsewhere" in line and "--insecure" in line


def test_half_of_tls_is_refused(models: Path, refusal: Callable[..., str], tmp_path: Path) -> None:
    assert "both" in refusal("--models", models / "writer", "--cert", tmp_path / "cert.pem", *LOCAL)


@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), (" \n", "is empty")])
def test_a_token_file_without_token_is_refused(
    models: Path, refusal: Callable[..., str], tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    line = refusal("--models", models / "writer", "--token-file", path, "--port", "0", "--metrics-port", "-1")
    assert message in line


# Tokens, and the end


def start(models: Path, *arguments: str | Path) -> ServerProcess:
    return ServerProcess("--models", models / "writer", models / "reader", *arguments)


def held_stream(session: Session, max_tokens: int) -> GenerateStream:
    """A stream under way that stays so until it is read: its messages are too many for gRPC's buffers."""
    options = StreamOptions(max_chunk_tokens=1)
    stream = session.generate(
        "a", max_tokens=max_tokens, temperature=0, ignore_eos=True, request_id="x" * 128, stream_options=options
    )
    next(stream)
    return stream


@pytest.mark.usefixtures("writer", "reader")
def test_a_token_lets_in_and_a_drained_server_finishes_what_it_began(
    models: Path, greedy: Greedy, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    with start(models, "--token-file", token, "--drain-seconds", "60") as server:
        with Client(server.target, token="open sesame", timeout=2 * PATIENCE) as client:
            _only_the_token_lets_in(server)
            session = client.open_session()
            stream = held_stream(session, 800)
            server.terminate()
            eventually(lambda: client.health("ssp.v1.Generation") is ServingStatus.NOT_SERVING)
            assert client.health() is ServingStatus.SERVING, "the process is alive"
            calls = lambda: client.complete("b"), client.open_session, lambda: client.classify(["A"], model="reader")
            for call in calls:
                with pytest.raises(Unavailable, match="the server is draining") as refused:
                    call()
                assert refused.value.reason == "DRAINING" and refused.value.retry_after == 5
            assert server.metrics()["ssp_admission_rejections_total{draining}"] >= 3
            chunks = list(stream)
        tokens = [token for chunk in chunks for token in chunk.token_ids]
        assert len(tokens) == 799 and chunks[-1].finish_reason is FinishReason.LENGTH
        assert tokens[:40] == greedy.tokens([0, *b"a"], 41)[1:]
        assert server.wait() == 0


def _only_the_token_lets_in(server: ServerProcess) -> None:
    for wrong in ("", "open", "open sesame!", "Bearer open sesame"):
        with Client(server.target, token=wrong, timeout=PATIENCE) as client:
            for call in (client.models, lambda client=client: client.complete("a"), client.open_session):
                with pytest.raises(Unauthenticated, match="send the metadata `authorization: Bearer <token>`"):
                    call()
            assert client.health() is ServingStatus.SERVING, "a probe needs no token"


@pytest.mark.usefixtures("writer", "reader")
def test_a_drain_that_takes_too_long_ends_streams_at_a_token(models: Path, greedy: Greedy) -> None:
    with start(models, "--drain-seconds", "0.2") as server, Client(server.target, timeout=2 * PATIENCE) as client:
        stream = client.generate("a", max_tokens=100_000, temperature=0, ignore_eos=True)
        tokens = [*next(stream).token_ids]
        server.terminate()
        *_, last = chunks = list(stream)
        tokens += [token for chunk in chunks for token in chunk.token_ids]
        assert last.finish_reason is FinishReason.ABORT and last.usage is not None
        assert last.usage.completion_tokens == len(tokens)
        assert tokens[:20] == greedy.tokens([0, *b"a"], 20)[: len(tokens)]
        assert server.wait() == 0


def test_a_second_server_does_not_share_the_port(server: ServerProcess) -> None:
    port = int(server.target.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    other = grpc.server(None, options=[("grpc.so_reuseport", 1)])  # type: ignore[arg-type]  # it never starts
    with pytest.raises(RuntimeError):
        other.add_insecure_port(server.target)
