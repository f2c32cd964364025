"""Step over the wire: every input is answered, in order, with what the model itself says there."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
import torch

from ssp.v1 import common_pb2, sessions_pb2
from ssp_client import (
    AsyncClient,
    Client,
    InvalidArgument,
    NotFound,
    PositionMismatch,
    SessionBusy,
    SSPError,
    Unavailable,
)
from ssp_client.status import to_exception
from ssp_runtime.formats.artifact import Artifact
from tests.greedy import Greedy
from tests.server.own_outputs import Rows, close, forward
from tests.server.server_process import PATIENCE, ServerProcess, eventually

Request = sessions_pb2.StepRequest
Response = sessions_pb2.StepResponse
Open = Callable[[Iterable[Request]], Any]  # a running call

TOKENS = [*b"the quick brown fox jumps over the lazy dog"]


@pytest.fixture
def said(writer: Artifact) -> Rows:
    """The logits after each of the tokens, which a text begins with."""
    return forward(writer.language_model, torch.tensor([0, *TOKENS]))[1:]


@pytest.fixture
def opened(server: ServerProcess) -> Iterator[Open]:
    with grpc.insecure_channel(server.target) as channel:
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/ssp.v1.Sessions/Step")
        yield lambda requests: method((request.SerializeToString() for request in requests), timeout=PATIENCE)


def request(*tokens: int, **more: Any) -> Request:
    return Request(input=common_pb2.SequenceInput(input_ids=common_pb2.TokenIds(ids=tokens)), **more)


def parsed(messages: Iterable[bytes]) -> Iterator[Response]:
    return map(Response.FromString, messages)


def rows_of(responses: Iterable[Response]) -> Rows:
    packed = [response.outputs for response in responses]
    return np.concatenate([np.frombuffer(each.data, "<f4").reshape(-1, each.width) for each in packed])


# The client


def test_lock_step(client: Client, said: Rows, greedy: Greedy) -> None:
    with client.open_session() as session:
        with session.step() as stream:
            found = [stream.send(TOKENS[i : i + 1]) for i in range(20)]
            assert session.position == 21
            found.append(stream.send(TOKENS[20:]))
            with pytest.raises(SessionBusy):
                client.session(session.id).append("a")
        assert close(np.concatenate(found), said)
        info = session.info()
        assert info.status.position == info.status.committed_position == session.position == len(TOKENS) + 1
        with pytest.raises(InvalidArgument, match="nothing is pending to go on from; give at least one token"):
            session.generate_text(max_tokens=1)
        text = session.complete("!", max_tokens=8, temperature=0.0, ignore_eos=True).token_ids
        greedy.check(text, [0, *TOKENS, ord("!")])


def test_text_is_answered_token_by_token(client: Client, said: Rows) -> None:
    with client.open_session() as session, session.step() as stream:
        assert close(stream.send(bytes(TOKENS).decode()), said)
        with pytest.raises(ValueError, match="at least one token or vector"):
            stream.send("")


def test_many_under_way_are_answered_in_order_one_by_one(client: Client, said: Rows) -> None:
    with client.open_session() as session, session.step() as stream:
        for token in TOKENS:
            stream.put([token])
        with pytest.raises(ValueError, match="take those of what was put before"):
            stream.send([1])
        stream.end()
        answers = list(stream)
        assert [len(answer) for answer in answers] == [1] * len(TOKENS)
        assert close(np.concatenate(answers), said)
        with pytest.raises(ValueError, match="has ended"):
            stream.put([1])


def test_another_thread_may_put(client: Client, said: Rows) -> None:
    with client.open_session() as session, session.step() as stream:

        def put() -> None:
            for token in TOKENS:
                stream.put([token])
            stream.end()

        thread = threading.Thread(target=put)
        thread.start()
        assert close(np.concatenate(list(stream)), said)
        thread.join()


def test_the_likeliest_tokens(client: Client, said: Rows) -> None:
    expected = torch.from_numpy(said).log_softmax(-1).topk(4)
    with client.open_session() as session, session.step(top_logprobs=4) as stream:
        tops = [*stream.send(TOKENS[:1]), *stream.send(TOKENS[1:])]
    assert [list(top.token_ids) for top in tops] == expected.indices.tolist()
    assert np.array([top.logprobs for top in tops]) == pytest.approx(expected.values.numpy(), abs=2e-4)


def test_an_exception_cancels_and_the_session_goes_on_where_it_stood(client: Client, writer: Artifact) -> None:
    many = [*TOKENS, *TOKENS * 1000]
    with client.open_session() as session:
        with pytest.raises(ZeroDivisionError), session.step() as stream:
            stream.send(TOKENS)
            for start in range(len(TOKENS), len(many), 430):
                stream.put(many[start : start + 430])
            raise ZeroDivisionError
        assert session.position is None
        eventually(lambda: not session.info().busy, within=PATIENCE / 3)  # its deadline would end it too
        folded = session.info().status.position - 1
        assert len(TOKENS) <= folded < len(many)
        with session.step() as stream:
            expected = forward(writer.language_model, torch.tensor([0, *many[:folded], 1]))[-1:]
            assert close(stream.send([1]), expected)


def test_what_the_server_refuses(client: Client) -> None:
    with client.open_session() as session:
        with pytest.raises(PositionMismatch, match="position 0, not at 7"), session.step(expected_position=7) as stream:
            stream.send([1])
        with (
            pytest.raises(InvalidArgument, match=r"top_logprobs must be in \[0, 256\]"),
            session.step(top_logprobs=300),
        ):
            pass
        with pytest.raises(InvalidArgument, match="token id 256 is outside"), session.step() as stream:
            assert len(stream.send([1, 2])) == 2
            stream.send([256])
        assert session.info().status.committed_position == session.position == 3
        with pytest.raises(InvalidArgument, match="not numbers"), session.step() as stream:
            stream.send(np.zeros((2, 3), np.float32))
    with pytest.raises(NotFound), client.session(session.id).step() as stream:
        stream.send([1])


def test_a_session_that_is_closed_meanwhile_ends_its_stream(client: Client) -> None:
    session = client.open_session()
    with pytest.raises(NotFound, match="the session was closed"), session.step() as stream:
        stream.send([1])
        client.session(session.id).close()
        next(stream)


async def test_the_same_with_asyncio(server: ServerProcess, said: Rows) -> None:
    async with AsyncClient(server.target, timeout=PATIENCE) as client, await client.open_session() as session:
        async with session.step() as stream:
            first = await stream.send(TOKENS[:3])
            for token in TOKENS[3:]:
                stream.put([token])
            with pytest.raises(ValueError, match="take those of what was put before"):
                await stream.send([1])
            stream.end()
            rest = [answer async for answer in stream]
        assert close(np.concatenate([first, *rest]), said)
        assert session.position == (await session.info()).status.committed_position == len(TOKENS) + 1
        async with session.step(top_logprobs=2) as stream_of_top:
            assert [len(top.token_ids) for top in await stream_of_top.send(TOKENS)] == [2] * len(TOKENS)
        with pytest.raises(InvalidArgument, match="256 is outside"):
            async with session.step() as stream:
                await stream.send([256])
        with pytest.raises(ZeroDivisionError):
            async with session.step() as stream:
                raise ZeroDivisionError
        while (await session.info()).busy:
            await asyncio.sleep(0.01)


# The contract


def test_a_request_gets_one_response_unless_its_outputs_are_large(client: Client, opened: Open, said: Rows) -> None:
    with client.open_session() as session:
        long = TOKENS * 60
        requests = [Request(session_id=session.id), request(*TOKENS[:2]), request(*TOKENS[2:22]), request(*long)]
        *answers, last = parsed(opened([*requests, request(5)]))
    assert close(rows_of(answers)[:22], said[:22])
    assert [len(each.outputs.data) // 1024 for each in answers] == [2, 20, 1024, 1024, len(long) - 2048, 1]
    assert [each.num_left for each in answers] == [0, 0, len(long) - 1024, len(long) - 2048, 0, 0]
    assert [each.session.position for each in answers] == [3, 23, 1047, 2071, len(long) + 23, len(long) + 24]
    assert not last.HasField("outputs") and last.session.committed_position == last.session.position == len(long) + 24


def test_input_may_come_with_the_first_message(client: Client, opened: Open, said: Rows) -> None:
    with client.open_session() as session:
        first, last = parsed(opened([request(*TOKENS, session_id=session.id, expected_position=0)]))
        assert close(rows_of([first]), said) and last.session.version == session.info().status.version


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (request(1, session_id="a"), "for the stream's first message only"),
        (request(1, expected_position=0), "for the stream's first message only"),
        (request(1, top_logprobs=1), "for the stream's first message only"),
        (Request(), "the input is empty"),
        (request(1, 300), "token id 300 is outside"),
    ],
)
def test_a_bad_request_ends_the_stream_after_those_before_it(
    client: Client, opened: Open, server: ServerProcess, bad: Request, why: str
) -> None:
    with client.open_session() as session:
        messages = opened([Request(session_id=session.id), *(request(token) for token in TOKENS), bad, request(1)])
        answers, error = until_refused(messages, server)
        assert isinstance(error, InvalidArgument) and why in error.message
        assert len(rows_of(answers)) == len(TOKENS)
        assert session.info().status.committed_position == len(TOKENS) + 1


@pytest.mark.parametrize("requests", [[], [Request()], [request(1)]])
def test_the_first_message_names_the_session(opened: Open, server: ServerProcess, requests: list[Request]) -> None:
    _, error = until_refused(opened(requests), server)
    assert isinstance(error, InvalidArgument) and "must name the session" in error.message


def until_refused(messages: Any, server: ServerProcess) -> tuple[list[Response], SSPError]:
    answers = []
    with pytest.raises(grpc.RpcError) as refused:
        for response in parsed(messages):
            answers.append(response)
    return answers, to_exception(cast(grpc.Call, refused.value), server.target)


def test_a_client_that_does_not_read_is_read_no_further(client: Client, opened: Open) -> None:
    taken = 0
    seen: list[int] = []

    def requests(session_id: str) -> Iterator[Request]:
        nonlocal taken
        yield Request(session_id=session_id)
        for _ in range(20_000):
            taken += 1
            yield request(*TOKENS)

    def at_rest() -> bool:
        seen.append(taken)
        return len(seen) > 30 and len(set(seen[-30:])) == 1

    with client.open_session() as session:
        messages = opened(requests(session.id))
        eventually(at_rest)
        assert 4096 // len(TOKENS) < taken < 5_000, "it read on although nothing of what it answered was read"
        position = session.info().status.position
        messages.cancel()
        eventually(lambda: not session.info().busy)
        assert 0 < position <= session.info().status.position < 43 * taken


def test_a_draining_server_answers_what_it_has_read(admin: Client, user: Client, said: Rows) -> None:
    with user.open_session("writer") as session, ThreadPoolExecutor(1) as threads:
        with pytest.raises(Unavailable, match="draining"), session.step() as stream:
            stream.send(TOKENS[:10])
            drained = threads.submit(admin.drain)
            eventually(lambda: admin.load().draining)
            stream.send(TOKENS[10:])
        assert drained.result(PATIENCE) == 0
        admin.resume()
        with session.step() as stream:
            assert close(stream.send(TOKENS[10:]), said[10:])


@pytest.mark.slow
def test_cut_streams_keep_the_state(writer: Artifact, models: Path) -> None:
    """The server ends, and what was folded is there when it is back."""
    store = models.with_name("store-of-steps")
    arguments = ("--models", models / "writer", "--store", store, "--drain-seconds", "0.1")
    expected = forward(writer.language_model, torch.tensor([0, *TOKENS]))[1:]
    with ServerProcess(*arguments) as server, Client(server.target, timeout=PATIENCE) as client:
        session = client.open_session()
        with pytest.raises(Unavailable, match="draining"), session.step() as stream:
            stream.send(TOKENS[:10])
            server.terminate()
            next(stream)
        assert server.wait() == 0
    with ServerProcess(*arguments) as server, Client(server.target, timeout=PATIENCE) as client:
        with client.session(session.id).step() as stream:
            assert close(stream.send(TOKENS[10:]), expected[10:])
        assert client.session(session.id).info().status.committed_position == len(TOKENS) + 1
