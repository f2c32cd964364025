"""States on their way to files and back: whole, or not at all."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from ssp_client import AsyncClient, Client, DataLoss, Internal

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure, FakeServer


def test_there_and_back(client: Client, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "state"
    with client.open_session() as session:
        session.append("abc")
        assert session.export(str(path), dtype="float16") == 3
    assert path.read_bytes() == b"\3" + bytes(7) and stat.S_IMODE(path.stat().st_mode) & 0o400
    asked = server.requests["ExportState"][0]
    assert (asked.expected_position, asked.dtype, asked.checkpoint) == (3, 3, "")
    with client.import_session(path, "counter", routing_key="k", ttl=9) as moved:
        assert (moved.position, moved.model) == (3, "counter") and moved.id.startswith("k.")
    sent = server.requests["ImportState"][0]
    assert (sent.model, sent.ttl.seconds) == ("counter", 9) and len(sent.request_id) == 32


def test_a_checkpoint_is_exported_wherever_the_session_stands(client: Client, server: FakeServer) -> None:
    with client.open_session() as session:
        session.append("abc")
        session.export(io.BytesIO(), checkpoint="here")
    asked = server.requests["ExportState"][0]
    assert asked.checkpoint == "here" and not asked.HasField("expected_position")


def test_what_breaks_leaves_the_old_file(client: Client, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with client.open_session() as session:
        server.failures["ExportState"] = [Failure(code=grpc.StatusCode.INTERNAL)]
        with pytest.raises(Internal):
            session.export(path)
        server.state_bytes = 9
        with pytest.raises(DataLoss, match="of the state's 9 bytes 8 came"):
            session.export(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


async def test_the_same_with_asyncio(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "state"
    async with AsyncClient(server.target, timeout=10) as client, await client.open_session() as session:
        await session.append("abc")
        assert await session.export(path) == 3
        async with await client.import_session(path, ttl=9) as moved:
            assert moved.position == 3
        server.failures["ExportState"] = [Failure(code=grpc.StatusCode.INTERNAL)]
        with pytest.raises(Internal):
            await session.export(path)
        server.state_bytes = 7
        with pytest.raises(DataLoss):
            await session.export(path)
    assert path.read_bytes() == b"\3" + bytes(7)
