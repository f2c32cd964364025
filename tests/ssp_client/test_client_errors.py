from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

import ssp_client as ssp
from ssp_client import AsyncClient, Client
from ssp_client.channel import Connection, is_loopback
from ssp_client.errors import CODES, REASONS

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure

SITUATIONS = [(code, "", kind) for code, kind in CODES.items()] + [(*key, kind) for key, kind in REASONS.items()]


@pytest.mark.parametrize(("code", "reason", "kind"), SITUATIONS)
def test_every_status_has_its_exception(
    client: Client, server: FakeServer, code: grpc.StatusCode, reason: str, kind: type[ssp.SSPError]
) -> None:
    server.failures["CloseSession"] = [Failure(code=code, reason=reason, message="what happened")]
    with pytest.raises(ssp.SSPError) as caught:
        client.session("r.1").close()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert "what happened" in str(caught.value)


async def test_async_errors_are_the_same(server: FakeServer) -> None:
    failure = Failure(code=grpc.StatusCode.ABORTED, reason="SESSION_BUSY")
    server.failures["CloseSession"], server.failures["Generate"] = [failure], [failure]
    async with AsyncClient(server.target) as client:
        with pytest.raises(ssp.SessionBusy, match="planted"):
            await client.session("r.1").close()
        with pytest.raises(ssp.SessionBusy):
            await anext(client.generate("a"))


def test_retry_after_is_told(client: Client, server: FakeServer) -> None:
    server.failures["Generate"] = [Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=1.5)]
    with pytest.raises(ssp.ResourceExhausted) as caught:
        list(client.generate("a"))
    assert caught.value.retry_after == 1.5


@pytest.mark.parametrize(("message", "metadata"), [("error id 7f3a.", {}), ("internal", {"error_id": "7f3a"})])
def test_error_id_is_told(client: Client, server: FakeServer, message: str, metadata: dict[str, str]) -> None:
    server.failures["GetModel"] = [Failure(code=grpc.StatusCode.INTERNAL, message=message, metadata=metadata)]
    with pytest.raises(ssp.Internal) as caught:
        client.model("counter")
    assert caught.value.error_id == "7f3a"


def test_a_failure_in_mid_stream(client: Client, server: FakeServer) -> None:
    server.failures["Generate"] = [Failure(code=grpc.StatusCode.INTERNAL, after=1)]
    stream = client.generate("a", max_tokens=10)
    assert next(stream).token_ids == (1, 2)
    with pytest.raises(ssp.Internal):
        next(stream)
    assert list(stream) == []


def test_exceptions_are_of_the_kinds_python_knows() -> None:
    assert issubclass(ssp.InvalidArgument, ValueError) and issubclass(ssp.NotFound, LookupError)
    assert issubclass(ssp.DeadlineExceeded, TimeoutError)
    assert str(ssp.NotFound("no model 'x'")) == "no model 'x'"


def test_timeouts(client: Client, server: FakeServer) -> None:
    server.seconds_per_chunk = 0.3
    with pytest.raises(ssp.DeadlineExceeded):
        list(client.generate("a", max_tokens=10, timeout=0.2))


def test_reads_are_retried_while_the_server_is_unavailable(client: Client, server: FakeServer) -> None:
    server.failures["GetModel"] = [Failure(code=grpc.StatusCode.UNAVAILABLE)]
    assert client.model("counter").name == "counter"
    assert len(server.requests["GetModel"]) == 2


def test_closing_is_not_retried(client: Client, server: FakeServer) -> None:
    server.failures["CloseSession"] = [Failure(code=grpc.StatusCode.UNAVAILABLE, retry_after=2)]
    with pytest.raises(ssp.Unavailable, match="planted") as caught:
        client.session("r.1").close()
    assert caught.value.retry_after == 2 and len(server.requests["CloseSession"]) == 1


@pytest.fixture
def nobody() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_nobody_answers(nobody: str) -> None:
    with Client(nobody) as client, pytest.raises(ssp.ServerUnreachable) as caught:
        client.models()
    assert str(caught.value) == f"no server answers at {nobody}; start one with `ssp-server serve`"


async def test_nobody_answers_async(nobody: str) -> None:
    async with AsyncClient(nobody) as client:
        with pytest.raises(ssp.ServerUnreachable):
            await client.health()


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "unix:/tmp/s", "dns:///localhost:1"]
)
def test_loopback(target: str) -> None:
    assert is_loopback(target)


def test_a_token_never_travels_in_the_clear() -> None:
    with pytest.raises(ValueError, match="only over TLS"):
        Connection(target="example.org:50051", token="secret")
    assert Connection(target="example.org:50051", token="secret", tls=True).secure
    assert "secret" not in repr(Connection(token="secret"))


def test_a_target_without_port_is_refused() -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Connection(target="example.org")


def test_unreadable_certificates_are_named() -> None:
    with pytest.raises(ValueError, match=r"/nowhere/ca\.pem"):
        Client("example.org:1", root_certificates="/nowhere/ca.pem")


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificate with openssl")
def test_tls_and_token(server: FakeServer, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    request += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True)
    port = server.add_tls(key.read_bytes(), certificate.read_bytes())
    with Client(f"localhost:{port}", root_certificates=certificate, token="abc") as client:
        assert len(client.models()) == 2
    assert server.metadata[0]["authorization"] == "Bearer abc"
    with Client(f"localhost:{port}", tls=True) as client, pytest.raises(ssp.Unavailable):
        client.health()


def test_the_token_is_sent(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSP_TOKEN", "abc")
    with Client() as client:
        client.models()
    assert server.metadata[0]["authorization"] == "Bearer abc"
    assert str(server.metadata[0]["user-agent"]).startswith("ssp-python/")
