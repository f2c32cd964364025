"""Many sequences on one stream: each is answered once, whatever the others are, and the server holds only so many."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import grpc
import pytest

from ssp.v1 import classification_pb2, common_pb2
from ssp_client import Client, InvalidArgument
from ssp_client.status import to_exception
from tests.server.server_process import PATIENCE, ServerProcess, eventually
from tests.server.tiny_artifacts import LABELS

Request = classification_pb2.ClassifyManyRequest
Response = classification_pb2.ClassifyManyResponse

Open = Callable[[Iterable[bytes]], Any]  # a running call


@pytest.fixture
def opened(server: ServerProcess) -> Iterator[Open]:
    with grpc.insecure_channel(server.target, options=[("grpc.http2.bdp_probe", 0)]) as channel:
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/ssp.v1.Classification/ClassifyMany"
        )
        yield lambda bodies: method(iter(bodies), timeout=PATIENCE)


def body(*sequences: tuple[int, str]) -> bytes:
    indexed = [
        classification_pb2.IndexedSequence(index=index, input=common_pb2.SequenceInput(text=text))
        for index, text in sequences
    ]
    return Request(sequences=indexed).SerializeToString()


def results(messages: Iterable[bytes]) -> dict[int, classification_pb2.IndexedResult]:
    found: dict[int, classification_pb2.IndexedResult] = {}
    for message in messages:
        for result in Response.FromString(message).results:
            assert result.index not in found, "answered twice"
            found[result.index] = result
    return found


def test_a_bad_sequence_gets_an_error_and_disturbs_no_other(opened: Open, client: Client) -> None:
    bodies = [body((70, "ACGT"), (7, "ACX"), (2**64 - 1, "GATTACA")), body((1, "")), body(), body((5, "AC"))]
    found = results(opened(bodies))
    assert found.keys() == {70, 7, 2**64 - 1, 1, 5}
    assert "letter 'X' at position 2" in found[7].error and "1 to 1000000 tokens, not 0" in found[1].error
    alone = client.classify(["ACGT", "GATTACA", "AC"])
    for index, expected in zip((70, 2**64 - 1, 5), alone, strict=True):
        assert found[index].prediction.num_tokens == expected.num_tokens
        assert found[index].prediction.logits == pytest.approx(expected.logits, abs=1e-5)


def test_labels_come_with_predictions(opened: Open) -> None:
    (message,) = opened([body((0, "ACGT"))])
    assert tuple(Response.FromString(message).labels) == LABELS


def test_an_answer_comes_before_the_writer_has_ended(opened: Open) -> None:
    answered = 0

    def bodies() -> Iterator[bytes]:
        for number in range(3):
            eventually(lambda: answered == number)  # noqa: B023  # asked before the next number
            yield body((number, "ACGT"))

    for message in opened(bodies()):
        assert [result.index for result in Response.FromString(message).results] == [answered]
        answered += 1
    assert answered == 3


def test_a_malformed_message_ends_the_stream_after_what_came_before(opened: Open, server: ServerProcess) -> None:
    messages = opened([body((0, "ACGT")), body((1, "AC")), b"\xff" * 20, body((2, "A"))])
    found = []
    with pytest.raises(grpc.RpcError) as refused:
        for message in messages:
            found += [result.index for result in Response.FromString(message).results]
    error = to_exception(cast(grpc.Call, refused.value), server.target)
    assert isinstance(error, InvalidArgument) and "not a valid ClassifyManyRequest" in error.message
    assert sorted(found) == [0, 1]


def test_the_server_reads_no_more_than_it_may_hold(opened: Open) -> None:
    taken = 0
    seen: list[int] = []

    def bodies() -> Iterator[bytes]:
        nonlocal taken
        for number in range(600):
            taken += 1
            yield body(*((512 * number + i, "ACG") for i in range(512)))

    def at_rest() -> bool:
        seen.append(taken)
        return len(seen) > 30 and len(set(seen[-30:])) == 1

    messages = opened(bodies())
    eventually(at_rest)
    assert 8 <= taken < 100, "it read on although nothing of what it had answered was read"
    found = results(next(messages) for _ in range(20))
    assert len(found) == 20 * 512
    messages.cancel()


def test_a_cancelled_stream_computes_nothing_more(opened: Open, server: ServerProcess, client: Client) -> None:
    eventually(lambda: client.load().calls == _waiting(client) == 0)
    before = server.metrics()["ssp_classify_sequences_total"]
    messages = opened([body(*((number, "ACGT" * 4000) for number in range(100)))])
    eventually(lambda: _waiting(client) > 0)
    messages.cancel()
    eventually(lambda: client.load().calls == _waiting(client) == 0)
    assert server.metrics()["ssp_classify_sequences_total"] - before < 50


def _waiting(client: Client) -> int:
    return next(model.waiting for model in client.load().models if model.model == "reader")
