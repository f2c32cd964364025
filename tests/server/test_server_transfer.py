"""Sessions that are carried from one server to another, as files."""

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from safetensors import safe_open

from ssp.v1 import sessions_pb2
from ssp_client import (
    AsyncClient,
    Client,
    DataLoss,
    InvalidArgument,
    ModelMismatch,
    NotFound,
    PositionMismatch,
    SamplingParams,
    SessionBusy,
    Unavailable,
)
from ssp_client.cli import main
from ssp_client.session import Session
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess, eventually

TOKEN = "token-one"
TEXT = "the quick brown fox"
CONTEXT = [0, *TEXT.encode()]
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(temperature=1.0, seed=7, repetition_penalty=1.3, ignore_eos=True, max_tokens=30)


@pytest.fixture
def there(twins: tuple[ServerProcess, ServerProcess]) -> Iterator[Client]:
    """Another server, which has the same writer under another name, and a model that is not like it."""
    with Client(twins[0].target, token=TOKEN, timeout=PATIENCE) as made:
        yield made


def generate(session: Session, prompt: str | None = None, max_tokens: int = 8) -> tuple[int, ...]:
    return session.complete(prompt, max_tokens=max_tokens, sampling_params=GREEDY).token_ids


def sampled(session: Session) -> tuple[int, ...]:
    return session.complete(sampling_params=SAMPLED).token_ids


def file_of(session: Session) -> bytes:
    file = io.BytesIO()
    session.export(file)
    return file.getvalue()


def test_a_session_goes_on_elsewhere(client: Client, there: Client, greedy: Greedy, tmp_path: Path) -> None:
    path = tmp_path / "fox.safetensors"
    with client.open_session() as session:
        said = generate(session, TEXT)
        assert session.export(path) == 28 and list(tmp_path.iterdir()) == [path]
        with there.import_session(path, routing_key="moved", ttl=60) as moved:
            info = moved.info()
            assert (moved.model, moved.position, info.ttl) == ("scribe", 28, 60.0) and moved.id.startswith("moved.")
            assert sampled(moved) == sampled(session)
            with client.import_session(path) as again:
                greedy.check([*said, *generate(again)], CONTEXT)


def test_the_file_is_safetensors_and_keeps_secrets(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "fox.safetensors"
    with client.open_session() as session:
        session.append(TEXT)
        session.export(path)
        with safe_open(path, "pt") as file:
            assert "recent.ids" in file.keys() and "state_spec" in file.metadata()["header"]  # noqa: SIM118
        assert session.id.encode() not in path.read_bytes()
        assert path.stat().st_size <= client.model("writer").limits.max_snapshot_bytes


def test_tokens_that_were_not_delivered_go_along(client: Client, there: Client) -> None:
    with client.open_session(check_position=False) as session:
        with session.generate(TEXT, max_tokens=20_000, sampling_params=GREEDY) as stream:
            next(stream)
        exported: list[bytes] = []
        eventually(lambda: idle(session, exported))  # the server has noticed that nobody listens
        with there.import_session(io.BytesIO(exported[0])) as moved:
            assert generate(moved) == generate(session)


def idle(session: Session, exported: list[bytes]) -> bool:
    try:
        exported.append(file_of(session))
    except SessionBusy:
        return False
    return True


def test_a_checkpoint_is_exported_while_a_call_is_under_way(client: Client, there: Client, greedy: Greedy) -> None:
    file = io.BytesIO()
    with client.open_session(check_position=False) as session:
        session.append(TEXT)
        session.checkpoint("fox")
        with session.generate("abc", max_tokens=20_000, sampling_params=GREEDY) as stream:
            next(stream)
            with pytest.raises(SessionBusy):
                file_of(session)
            assert session.export(file, checkpoint="fox") == 20
        with pytest.raises(NotFound, match="no checkpoint 'cat'"):
            session.export(file, checkpoint="cat")
        with pytest.raises(PositionMismatch):
            session.export(file, checkpoint="fox", expected_position=1)
    with there.import_session(io.BytesIO(file.getvalue())) as moved:
        greedy.check(generate(moved), CONTEXT)


def test_half_the_bytes(client: Client, there: Client) -> None:
    sizes = {}
    with client.open_session() as session:
        session.append(TEXT)
        for dtype in (None, "float32", "bfloat16", "float16"):
            file = io.BytesIO()
            session.export(file, dtype=dtype)
            sizes[dtype] = len(file.getvalue())
            with there.import_session(io.BytesIO(file.getvalue())) as moved:
                assert len(generate(moved)) == 8
        with pytest.raises(ValueError, match="dtype='int8' is none of float32, bfloat16, float16"):
            session.export(file, dtype="int8")  # type: ignore[arg-type]  # as users may
    state = client.model("writer").state_bytes_per_session
    assert sizes[None] == sizes["float32"]
    for dtype in ("bfloat16", "float16"):
        assert sizes[None] - sizes[dtype] == pytest.approx(state / 2, rel=0.05)


def test_a_retried_import_is_one_session(client: Client) -> None:
    request_id = uuid.uuid4().hex
    with client.open_session() as session:
        data = file_of(session)
    with client.import_session(io.BytesIO(data), request_id=request_id) as first:
        assert client.import_session(io.BytesIO(data), request_id=request_id).id == first.id


def test_what_is_refused(client: Client, there: Client, tmp_path: Path) -> None:
    with client.open_session() as session:
        session.append(TEXT)
        data = file_of(session)
    before = len(list(there.list_sessions()))
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    for wrong in (bytes(damaged), data[:-1], b"", b"not a snapshot"):
        with pytest.raises(DataLoss, match="snapshot"):
            there.import_session(io.BytesIO(wrong))
    with pytest.raises(ModelMismatch, match="of another model than 'griffin'"):
        there.import_session(io.BytesIO(data), "griffin")
    with there.open_session("griffin") as griffin:
        foreign = file_of(griffin)
    with pytest.raises(ModelMismatch, match="no model of this server fits"):
        client.import_session(io.BytesIO(foreign))
    with pytest.raises(InvalidArgument, match="routing_key"):
        there.import_session(io.BytesIO(data), routing_key="a b")
    with pytest.raises(InvalidArgument, match="ttl"):
        there.import_session(io.BytesIO(data), ttl=-1)
    with pytest.raises(FileNotFoundError):
        there.import_session(tmp_path / "none")
    assert len(list(there.list_sessions())) == before


def test_too_large_a_file_is_refused_while_it_arrives(client: Client, server: ServerProcess) -> None:
    largest = client.model("writer").limits.max_snapshot_bytes
    with pytest.raises(InvalidArgument, match=f"larger than the {largest} bytes"):
        client.import_session(io.BytesIO(bytes(largest + 1)), "writer")
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100 * largest:
            sent += 1 << 20
            yield sessions_pb2.ImportStateRequest(data=bytes(1 << 20)).SerializeToString()

    with grpc.insecure_channel(server.target) as channel:
        call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/ssp.v1.Sessions/ImportState")
        with pytest.raises(grpc.RpcError) as refusal:
            call(endless(), timeout=PATIENCE)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT and sent < 100 * largest


def test_a_session_leaves_a_server_that_drains(admin: Client, user: Client, client: Client, greedy: Greedy) -> None:
    session = user.open_session("writer")
    session.append(TEXT)
    admin.drain()
    try:
        data = file_of(session)
        with pytest.raises(Unavailable):
            user.import_session(io.BytesIO(data))
    finally:
        admin.resume()
    with session, client.import_session(io.BytesIO(data)) as moved:
        greedy.check(generate(moved), CONTEXT)


def test_a_file_that_cannot_be_written_leaves_the_old_one(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "fox.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(NotFound):
        client.session("a." + "0" * 32).export(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


async def test_the_same_with_asyncio(
    server: ServerProcess, twins: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    path = tmp_path / "fox.safetensors"
    async with (
        AsyncClient(server.target) as client,
        AsyncClient(twins[1].target, token=TOKEN) as there,
        await client.open_session() as session,
    ):
        await session.append(TEXT)
        assert await session.export(path, dtype="float32") == 20
        async with await there.import_session(path) as moved:
            first, second = [await each.complete(sampling_params=SAMPLED) for each in (session, moved)]
            assert first.token_ids == second.token_ids


def test_on_the_command_line(
    client: Client,
    there: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "fox.safetensors"
    with client.open_session() as session:
        session.append(TEXT)
        session.checkpoint("fox")
        session.append("!")
        at = ("--target", client.target, "--checkpoint", "fox", "--dtype", "bfloat16")
        assert main(["sessions", "export", session.id, str(path), *at]) == 0
    assert "position 20" in capsys.readouterr().err
    monkeypatch.setenv("SSP_TOKEN", TOKEN)
    assert main(["sessions", "import", str(path), "--target", there.target, "--routing-key", "cli"]) == 0
    moved = capsys.readouterr().out.strip()
    assert moved.startswith("cli.") and there.session(moved).close().position == 20
