from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest

from ssp_client import (
    AsyncClient,
    Client,
    Internal,
    InvalidArgument,
    InvalidSequence,
    Limits,
    NotFound,
    Prediction,
    ResourceExhausted,
    Unavailable,
)
from ssp_client.batching import Batcher, Budget, budget

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure

SEQUENCES = ["ACGT"[: 1 + n % 4] * (1 + n // 4) for n in range(11)]


def _sizes(server: FakeServer) -> list[int]:
    return sorted((len(request.sequences) for request in server.requests["ClassifyMany"]), reverse=True)


def test_batches_keep_to_the_limits_and_the_order(client: Client, server: FakeServer) -> None:
    predictions = client.classify(SEQUENCES, model="parity")
    assert [prediction.num_tokens for prediction in predictions] == [len(sequence) for sequence in SEQUENCES]
    assert _sizes(server) == [4, 4, 3]
    assert len(server.requests["GetModel"]) == 1
    client.classify(["A"], model="parity")
    assert len(server.requests["GetModel"]) == 1, "the limits are asked for once"


def test_a_prediction(client: Client) -> None:
    (prediction,) = client.classify(["ACG"])
    assert prediction.label == "odd" and prediction.labels == ("even", "odd")
    assert prediction.probabilities == (0.25, 0.75) and prediction.probability == 0.75


def test_batches_keep_to_the_size_of_a_message(client: Client, server: FakeServer) -> None:
    client.classify(["A" * 1000] * 5, model="parity")
    assert _sizes(server) == [2, 2, 1]
    assert all(request.ByteSize() <= server.max_message_bytes for request in server.requests["ClassifyMany"])


def test_a_sequence_too_large_for_a_message_is_named(client: Client) -> None:
    with pytest.raises(InvalidSequence, match="sequence 1: it takes 5,0") as caught:
        client.classify(["A", "A" * 5000], model="parity")
    assert caught.value.index == 1


def test_batch_size_may_be_smaller(client: Client, server: FakeServer) -> None:
    client.classify(SEQUENCES, model="parity", batch_size=3)
    assert _sizes(server) == [3, 3, 3, 2]
    with pytest.raises(InvalidArgument, match="at least 1"):
        client.classify(SEQUENCES, model="parity", batch_size=0)


def test_the_only_classifier_is_found(client: Client, server: FakeServer) -> None:
    client.classify(["A"])
    assert server.requests["ClassifyMany"][0].model == "parity"


def test_wrong_models(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="'counter' does not classify"):
        client.classify(["A"], model="counter")
    with pytest.raises(NotFound):
        client.classify(["A"], model="x")


def test_one_text_is_not_many(client: Client) -> None:
    with pytest.raises(TypeError, match="put a single one into a list"):
        client.classify("ACGT")


def test_nothing_gives_nothing(client: Client, server: FakeServer) -> None:
    assert client.classify([]) == [] and not server.requests["ClassifyMany"]


@pytest.mark.parametrize("index", [0, 3, 5, 10])
def test_the_sequence_that_is_refused_is_named(client: Client, index: int) -> None:
    sequences = list(SEQUENCES)
    sequences[index] = "AXC"
    given: list[Prediction] = []
    with pytest.raises(InvalidSequence, match="letter 'X'") as caught:
        given += client.classify_many(sequences)
    assert caught.value.index == index and caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_refused_sequences_can_stand_among_the_predictions(client: Client) -> None:
    sequences = ["A", "AX", "ACG", "N", "C" * 9000, "AC", "Z", "G"]
    outcomes = list(client.classify_many(sequences, return_exceptions=True))
    refused = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, InvalidSequence)]
    assert refused == [1, 3, 4, 6]
    assert all(outcome.index == n for n, outcome in enumerate(outcomes) if isinstance(outcome, InvalidSequence))
    assert [outcome.num_tokens for outcome in outcomes if isinstance(outcome, Prediction)] == [1, 3, 2, 1]


def test_sequences_are_read_only_as_needed(client: Client) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "ACG"

    predictions = client.classify_many(endless(), look_ahead=8)
    assert [next(predictions).label for _ in range(10)] == ["odd"] * 10
    assert read <= 10 + 8 + 4
    predictions.close()  # type: ignore[attr-defined]  # the iterator is a generator


def test_a_broken_stream_is_taken_up_again(client: Client, server: FakeServer) -> None:
    broken = Failure(code=grpc.StatusCode.UNAVAILABLE, after=2)
    server.failures["ClassifyMany"] = [broken] * 4
    sequences = ["ACGT"[: 1 + n % 4] for n in range(40)]
    predictions = client.classify(sequences, batch_size=4)
    assert [prediction.num_tokens for prediction in predictions] == [len(sequence) for sequence in sequences]
    assert not server.failures["ClassifyMany"]


def test_a_stream_that_does_not_come_back_is_given_up(client: Client, server: FakeServer) -> None:
    server.failures["ClassifyMany"] = [Failure(code=grpc.StatusCode.UNAVAILABLE)] * 5
    with pytest.raises(Unavailable, match="planted"):
        client.classify(["A"])
    assert len(server.failures["ClassifyMany"]) == 1, "one try and three more"


def test_other_failures_are_not_tried_again(client: Client, server: FakeServer) -> None:
    server.failures["ClassifyMany"] = [Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED)] * 2
    with pytest.raises(ResourceExhausted):
        client.classify(["A"])
    assert len(server.failures["ClassifyMany"]) == 1


def test_an_error_of_the_source_is_its_own(client: Client) -> None:
    def sequences() -> Iterator[str]:
        yield "A"
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        client.classify(sequences())


@pytest.mark.usefixtures("server")
async def test_async_classifies() -> None:
    async def arriving() -> AsyncIterator[str]:
        for sequence in SEQUENCES:
            yield sequence

    async with AsyncClient() as client:
        expected = [len(sequence) for sequence in SEQUENCES]
        assert [p.num_tokens for p in await client.classify(SEQUENCES)] == expected
        assert [p.num_tokens async for p in client.classify_many(arriving(), look_ahead=8)] == expected
        with pytest.raises(InvalidSequence) as caught:
            await client.classify([*SEQUENCES, "X", "A"])
        assert caught.value.index == len(SEQUENCES)
        outcomes = [o async for o in client.classify_many(["A", "X", "AC"], return_exceptions=True)]
        assert [isinstance(outcome, InvalidSequence) for outcome in outcomes] == [False, True, False]


async def test_async_takes_a_broken_stream_up_again(server: FakeServer) -> None:
    broken = Failure(code=grpc.StatusCode.UNAVAILABLE, after=2)
    server.failures["ClassifyMany"] = [broken, broken]
    async with AsyncClient() as client:
        predictions = await client.classify(SEQUENCES, batch_size=2)
    assert [prediction.num_tokens for prediction in predictions] == [len(sequence) for sequence in SEQUENCES]
    server.failures["ClassifyMany"] = [Failure(code=grpc.StatusCode.INTERNAL)]
    async with AsyncClient() as client:
        with pytest.raises(Internal):
            await client.classify(SEQUENCES)


def test_batcher_counts_what_it_rejects() -> None:
    batcher = Batcher(Budget(sequences=2, message_bytes=100))
    assert batcher.add("A") == []
    batch, rejected = batcher.add(b"no text")
    assert not isinstance(batch, InvalidSequence) and batch.start == 0
    assert isinstance(rejected, InvalidSequence) and rejected.index == 1
    batcher.add("C")
    assert [batch.start for batch in batcher.flush()] == [2]


def test_budget_of_a_server_that_states_no_limits(client: Client) -> None:
    model = replace(client.model("parity"), limits=Limits(**dict.fromkeys(Limits.__annotations__, 0)))
    assert budget(model, None).sequences == 1 and budget(model, None).message_bytes > 1_000_000
