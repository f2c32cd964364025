from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest

from ssp_client import AsyncClient, Candidate, Client, FilledPlace, Filling, InvalidArgument
from ssp_client.cli import main

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure

A, C, T = (Candidate(token_id=ord(letter), text=letter, logprob=p) for letter, p in (("A", -1), ("C", -2), ("T", -4)))
OF_TWO = (
    Filling(
        places=(
            FilledPlace(position=1, candidates=(A, C), given=None),
            FilledPlace(position=3, candidates=(A, C), given=T),
        ),
        num_tokens=4,
    ),
    Filling(places=(FilledPlace(position=0, candidates=(A, C), given=A),), num_tokens=1),
)


def test_what_is_asked_and_answered(client: Client, server: FakeServer) -> None:
    assert client.fill(["C[MASK]GT", "A"], [(3,), (0,)], model="m", separately=True) == OF_TWO
    sent = server.requests["Fill"][0]
    assert (sent.model, sent.separately, sent.HasField("top")) == ("m", True, False)
    assert [list(sequence.positions) for sequence in sent.sequences] == [[3], [0]]
    client.fill([[1, 2]], top=0)
    sent = server.requests["Fill"][1]
    assert sent.HasField("top") and list(sent.sequences[0].input.input_ids.ids) == [1, 2]
    assert not sent.sequences[0].positions and not sent.separately


def test_pseudo_log_likelihood() -> None:
    assert [filling.total for filling in OF_TWO] == [-4, -1]


async def test_async_is_the_same(server: FakeServer) -> None:
    async with AsyncClient(server.target) as client:
        assert await client.fill(["C[MASK]GT", "A"], [(3,), (0,)]) == OF_TWO


def test_what_cannot_be_sent(client: Client, server: FakeServer) -> None:
    with pytest.raises(TypeError, match="put a single one into a list"):
        client.fill("ACGT")
    with pytest.raises(ValueError, match="1 lists of positions are given for 2 sequences"):
        client.fill(["A", "C"], [(0,)])
    with pytest.raises(ValueError, match="position -1 is none of a sequence; positions count tokens, from 0"):
        client.fill(["A"], [(0, -1)])
    assert not server.requests["Fill"]


def test_a_lost_connection_is_tried_again(client: Client, server: FakeServer) -> None:
    server.failures["Fill"] = [Failure(code=grpc.StatusCode.UNAVAILABLE)]
    assert client.fill(["A"], [(0,)]) and len(server.requests["Fill"]) == 2
    server.failures["Fill"] = [Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="sequence 0: it has no mask")]
    with pytest.raises(InvalidArgument, match="sequence 0: it has no mask"):
        client.fill(["A"])


@pytest.mark.usefixtures("server")
def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", "C[MASK]GT", "ACGT", "--positions", "3", "--top", "2"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["SEQUENCE", "POSITION", "GIVEN", "LOG", "P", "LIKELIEST"]
    assert [line.split() for line in lines] == [
        ["0", "1", "-", "-", "A", "0.3679", "C", "0.1353"],
        ["0", "3", "T", "-4.000", "A", "0.3679", "C", "0.1353"],
        ["1", "3", "T", "-4.000", "A", "0.3679", "C", "0.1353"],
    ]


def test_json(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", "[MASK]A", "--positions", "1", "--separately", "--model", "m", "--json"]) == 0
    (made,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert made["num_tokens"] == 2 and [place["position"] for place in made["places"]] == [0, 1]
    assert made["places"][1]["given"] == {"token_id": 65, "text": "A", "logprob": -1.0}
    assert server.requests["Fill"][0].separately and server.requests["Fill"][0].model == "m"


def test_refusals_are_one_line(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.failures["Fill"] = [Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="sequence 0: it has no mask")]
    assert main(["fill", "ACGT"]) == 1
    assert capsys.readouterr().err == "error: sequence 0: it has no mask\n"
