from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from ssp_client import AsyncClient, Client, NotFound, PositionMismatch, ServingStatus, Unavailable, tries
from ssp_client.cursor import Cursor
from ssp_client.delivery import Delivery
from ssp_client.types import FinishReason, GenerateChunk

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "FIRST_PAUSE", 0.01)


def test_a_session_keeps_its_place(client: Client, server: FakeServer) -> None:
    with client.open_session("counter", routing_key="tenant-7") as session:
        assert session.position == 0 and session.model == "counter" and session.id.startswith("tenant-7.")
        assert session.append("abcd").prompt_tokens == 4
        assert session.position == 4 and session.version == 5
        assert session.generate_text("ef", max_tokens=3) == "6 7 8 "
        assert session.position == 9
        assert session.complete(max_tokens=1).token_ids == (9,)
    assert [request.expected_position for request in server.requests["Generate"]] == [4, 9]
    assert server.requests["Append"][0].expected_position == 0
    assert not server.positions, "the block did not close the session"
    assert server.metadata[-1]["ssp-routing-key"] == "tenant-7"


def test_a_session_is_forked_kept_and_rewound(client: Client, server: FakeServer) -> None:
    session = client.open_session("counter")
    session.append("abcd")
    assert session.checkpoint("here").position == 4
    with session.fork(routing_key="branch") as forked:
        assert forked.id.startswith("branch.") and forked.model == "counter" and forked.position == 4
        forked.append("ef")
        assert (session.position, forked.position) == (4, 6)
    assert list(server.positions) == [session.id], "the block closed its fork alone"
    session.append("xyz")
    assert session.rewind("here").position == session.position == 4
    session.drop_checkpoint("here")
    assert [request.expected_position for request in server.requests["Rewind"]] == [7]
    assert server.requests["Fork"][0].expected_position == 4 and server.requests["Fork"][0].request_id
    assert not server.checkpoints


def test_scores(client: Client, server: FakeServer) -> None:
    session = client.open_session("counter")
    session.append("abcd")
    (one, two) = session.peek(["e", "fg"])
    assert (one.total, two.total, two.token_ids, session.position) == (-1, -2, (102, 103), 4)
    assert server.requests["Peek"][0].expected_position == 4
    assert client.score(["xyz"], model="counter")[0].logprobs == (-1, -1, -1)


async def test_the_same_with_asyncio(server: FakeServer) -> None:
    async with AsyncClient(server.target) as client:
        session = await client.open_session("counter")
        await session.append("abcd")
        await session.checkpoint("here")
        assert [score.total for score in await session.peek(["e", "fg"])] == [-1, -2]
        assert (await client.score(["xyz"]))[0].total == -3
        async with await session.fork() as forked:
            await forked.append("ef")
            assert (session.position, forked.position) == (4, 6)
        await session.append("xyz")
        assert (await session.rewind("here")).position == session.position == 4
        await session.drop_checkpoint("here")
    assert not server.checkpoints and list(server.positions) == [session.id]


def test_every_call_has_its_own_request_id(client: Client, server: FakeServer) -> None:
    session = client.open_session()
    session.append("a")
    session.append("a")
    session.generate_text()
    requests = [request for method in ("OpenSession", "Append", "Generate") for request in server.requests[method]]
    assert len({request.request_id for request in requests} - {""}) == 4


def test_a_second_writer_is_noticed(client: Client, server: FakeServer) -> None:
    session = client.open_session()
    client.session(session.id).append("abc")
    with pytest.raises(PositionMismatch, match="stands at 3, not at 0"):
        session.append("d")
    assert session.position == 0, "a refusal tells nothing new"
    assert session.info().position == 3 and session.position == 3
    session.append("d")
    client.session(session.id, check_position=False).append("e")
    assert server.positions[session.id] == 5


def test_an_explicit_position_wins(client: Client, server: FakeServer) -> None:
    session = client.open_session()
    with pytest.raises(PositionMismatch):
        session.append("d", expected_position=7)
    assert server.requests["Append"][0].expected_position == 7


def test_append_is_retried_under_its_request_id(client: Client, server: FakeServer) -> None:
    session = client.open_session()
    server.failures["Append"] = [Failure(code=grpc.StatusCode.UNAVAILABLE)] * 4  # gRPC's own four attempts
    session.append("abc")
    assert session.position == 3
    ids = [request.request_id for request in server.requests["Append"]]
    assert len(ids) == 5 and len(set(ids)) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_append_gives_up_at_last(server: FakeServer, seconds: float) -> None:
    with Client(server.target, recovery_seconds=seconds) as client:
        session = client.open_session()
        server.failures["Append"] = [Failure(code=grpc.StatusCode.UNAVAILABLE)] * 100
        with pytest.raises(Unavailable):
            session.append("abc")
    assert session.position is None, "it may have reached the server"
    assert (len(server.requests["Append"]) > 4) == (seconds > 0)


def test_a_broken_stream_goes_on_without_repeats(client: Client, server: FakeServer) -> None:
    session = client.open_session()
    server.failures["Generate"] = [Failure(code=grpc.StatusCode.UNAVAILABLE, after=2)]
    chunks = list(session.generate("ab", max_tokens=7))
    assert [token for chunk in chunks for token in chunk.token_ids] == [2, 3, 4, 5, 6, 7, 8]
    assert "".join(chunk.text for chunk in chunks) == "2 3 4 5 6 7 8 "
    assert chunks[-1].finish_reason is FinishReason.LENGTH and session.position == 9
    first, second = server.requests["Generate"]
    assert (list(first.received_ids), list(second.received_ids)) == ([], [2, 3, 4, 5])
    second.ClearField("received_ids")
    assert first == second and first.sampling_params.HasField("seed")


def test_a_stream_without_a_session_is_not_taken_up_again(client: Client, server: FakeServer) -> None:
    server.failures["Generate"] = [Failure(code=grpc.StatusCode.UNAVAILABLE, after=1)]
    with pytest.raises(Unavailable):
        list(client.generate("ab", max_tokens=7))


def test_after_a_cut_stream_the_position_is_unknown(client: Client, server: FakeServer) -> None:
    server.seconds_per_chunk = 0.01
    session = client.open_session()
    with session.generate("ab", max_tokens=900) as stream:
        assert next(stream).session
        assert session.position == 4
    assert session.position is None
    assert server.cancelled.wait(5)
    session.append("x")
    assert server.requests["Append"][0].expected_position == server.positions[session.id] - 1, "it asked before"
    assert session.position == server.positions[session.id]


@pytest.mark.usefixtures("server")
def test_sessions_outlive_clients() -> None:
    with Client() as client, client.open_session() as session:
        session.append("abc")
        kept = session.detach()
    with Client() as client:
        with client.session(kept) as session:
            assert session.position is None and session.info().state_bytes == 2048
        assert session.close().position == 3
        with pytest.raises(NotFound):
            session.close()


def test_a_server_may_die_while_it_does_again_what_it_lost(client: Client, server: FakeServer) -> None:
    server.saves = False
    with client.open_session() as session:
        session.generate_text("ab", max_tokens=4)
        server.lose(session.id)
        server.failures["Generate"] = [Failure(code=grpc.StatusCode.UNAVAILABLE, after=1)]
        assert session.info().status.position == session.position == 6
        assert len(server.requests["Generate"]) == 3


def test_the_error_of_a_block_is_not_hidden_by_its_close(client: Client, server: FakeServer) -> None:
    with pytest.raises(ZeroDivisionError), client.open_session():
        server.failures["CloseSession"] = [Failure(code=grpc.StatusCode.UNAVAILABLE)]
        raise ZeroDivisionError


def test_listing_asks_for_every_page(client: Client, server: FakeServer) -> None:
    ids = [client.open_session().id for _ in range(5)]
    assert [info.session_id for info in client.list_sessions(page_size=2)] == ids
    assert len(server.requests["ListSessions"]) == 3


async def test_async_session(server: FakeServer) -> None:
    async with AsyncClient() as client:
        async with await client.open_session("counter") as session:
            await session.append("ab")
            server.failures["Generate"] = [Failure(code=grpc.StatusCode.UNAVAILABLE, after=1)]
            assert await session.generate_text(max_tokens=4) == "2 3 4 5 "
            assert session.position == 6 and (await session.info()).model == "counter"
            assert [info.session_id async for info in client.list_sessions()] == [session.id]
        assert not server.positions
        first, second = server.requests["Generate"]
        assert first.request_id == second.request_id and list(second.received_ids) == [2, 3]


async def test_async_models_and_health(server: FakeServer) -> None:
    async with AsyncClient() as client:
        assert [model.name for model in await client.models()] == ["counter", "parity"]
        assert (await client.model("parity")).labels == ("even", "odd")
        await client.wait_until_ready(1)
        server.set_health("", 2)
        assert await client.health() is ServingStatus.NOT_SERVING
        with pytest.raises(Unavailable, match=r"not ready after 0\.1 seconds"):
            await client.wait_until_ready(0.1)


def test_models_and_health(client: Client, server: FakeServer) -> None:
    assert client.model("counter").limits.max_tokens == 1000
    with pytest.raises(NotFound, match="no model 'x'"):
        client.model("x")
    assert client.health() is ServingStatus.SERVING
    server.set_health("ssp.v1.Generation", 2)
    assert client.health("ssp.v1.Generation") is ServingStatus.NOT_SERVING
    with pytest.raises(NotFound):
        client.health("no.such.Service")


def test_delivery_drops_what_was_delivered_whatever_the_pieces() -> None:
    parcel = Delivery()
    assert parcel.fresh(GenerateChunk(token_ids=(1, 2, 3), text="abc"))
    parcel.begin_again()
    assert parcel.fresh(GenerateChunk(token_ids=(1, 2), text="a")) is None
    half = parcel.fresh(GenerateChunk(token_ids=(3, 4), text="bcd"))
    assert half and (half.token_ids, half.text) == ((4,), "d")


def test_cursor_ignores_refusals_and_forgets_after_silence() -> None:
    cursor = Cursor("r.1", check_position=True)
    cursor.position = 3
    cursor.failed(NotFound("gone"))
    assert cursor.position == 3
    cursor.failed(Unavailable("silence"))
    assert cursor.position is None
