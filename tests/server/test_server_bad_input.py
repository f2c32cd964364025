"""Whatever a client sends, it is told what is wrong; the server goes on, and so does everybody else's stream."""

from collections.abc import Callable, Iterator
from typing import cast

import grpc
import numpy as np
import pytest

from ssp.v1 import classification_pb2, common_pb2, generation_pb2, sessions_pb2
from ssp_client import (
    Client,
    InvalidArgument,
    NotFound,
    PositionMismatch,
    ResourceExhausted,
    ServingStatus,
    SSPError,
    StreamOptions,
)
from ssp_client.status import to_exception
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess

GENERATE, CLASSIFY = "/ssp.v1.Generation/Generate", "/ssp.v1.Classification/Classify"
UNKNOWN = "a." + "0" * 32

Send = Callable[[str, bytes], None]


@pytest.fixture(autouse=True)
def bystander(client: Client, greedy: Greedy) -> Iterator[None]:
    """A stream that is under way throughout the test and comes out unhurt."""
    with client.generate("bystander", max_tokens=20_000, temperature=0, ignore_eos=True) as stream:
        tokens = [*next(stream).token_ids]
        yield
        while len(tokens) < 48:
            tokens += next(stream).token_ids
    greedy.check(tokens[:48], [0, *b"bystander"])
    assert client.health("ssp.v1.Generation") is ServingStatus.SERVING


@pytest.fixture
def send(server: ServerProcess) -> Iterator[Send]:
    """Sends bytes that the client would never make; raises what a client would."""
    with grpc.insecure_channel(server.target) as channel:

        def send(path: str, body: bytes) -> None:
            try:
                if path == GENERATE:
                    stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
                    list(stream(body, timeout=PATIENCE))
                else:
                    unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
                    unary(body, timeout=PATIENCE)
            except grpc.RpcError as error:
                raise to_exception(cast(grpc.Call, error), server.target) from error

        yield send


def refused(kind: type[SSPError], message: str) -> pytest.RaisesExc[SSPError]:
    return pytest.raises(kind, match=message)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"model": "nope"}, NotFound, "no model is called 'nope'; this server has writer, reader"),
        ({"model": "reader"}, InvalidArgument, "model 'reader' classifies; it cannot generate"),
        ({"session_id": UNKNOWN}, NotFound, "no session has this session_id"),
        *(
            ({"session_id": text}, InvalidArgument, "a session_id is <routing_key>.<32 hexadecimal digits>")
            for text in ("x", "a." + "G" * 32, "../../etc/passwd", "a" * 100_000)
        ),
        ({"prompt": [256]}, InvalidArgument, "token id 256 is outside the vocabulary: ids are 0 to 255"),
        ({"prompt": [0] * 1_000_001}, InvalidArgument, "1000001 tokens are more than the 1000000 of one request"),
        ({"prompt": np.zeros((3, 2))}, InvalidArgument, "this model takes text or token ids, not numbers"),
        ({"max_tokens": 0}, InvalidArgument, r"max_tokens must be in \[1, 20000\], not 0"),
        ({"max_tokens": 20_001}, InvalidArgument, r"max_tokens must be in \[1, 20000\], not 20001"),
        ({"max_tokens": 2**32 - 1}, InvalidArgument, "max_tokens must be in"),
        ({"min_tokens": 9, "max_tokens": 8}, InvalidArgument, r"min_tokens must be in \[0, 8\], not 9"),
        ({"temperature": float("nan")}, InvalidArgument, r"temperature must be in \[0, 100\], not nan"),
        ({"temperature": float("inf")}, InvalidArgument, "temperature must be in"),
        ({"top_p": 0.0}, InvalidArgument, r"top_p must be in \(0, 1\], not 0"),
        ({"n": 17}, InvalidArgument, r"n must be in \[1, 16\], not 17"),
        ({"stop": ["x" * 257]}, InvalidArgument, "length of a stop text"),
        ({"stop_token_ids": [300]}, InvalidArgument, "token id 300 is outside the vocabulary"),
        ({"logit_bias": {1: float("nan")}}, InvalidArgument, "logit_bias must be in"),
        ({"expected_position": 3}, InvalidArgument, "expected_position needs a session_id"),
        ({"request_id": "x" * 129}, InvalidArgument, "request_id must have at most 128 characters, not 129"),
        ({"stream_options": StreamOptions(max_chunk_tokens=0)}, InvalidArgument, "max_chunk_tokens must be in"),
        ({"stream_options": StreamOptions(max_chunk_delay_ms=10**9)}, InvalidArgument, "max_chunk_delay_ms must be in"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_generate(client: Client, given: dict[str, object], kind: type[SSPError], message: str) -> None:
    with refused(kind, message):
        list(client.generate(**{"prompt": "a", **given}))  # type: ignore[arg-type]  # wrong on purpose


def test_a_negative_number_does_not_even_leave_the_client(client: Client) -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        list(client.generate("a", max_tokens=-1))


def test_several_completions_on_a_session(client: Client) -> None:
    with client.open_session() as session, refused(InvalidArgument, "n must be 1 on a session"):
        list(session.generate("a", n=2))


def test_a_wrong_position_changes_nothing(client: Client) -> None:
    with client.open_session() as session:
        with refused(PositionMismatch, "the session stands at position 0, not at 5"):
            session.append("a", expected_position=5)
        assert session.info().status.version == 0


def test_nothing_to_append(client: Client) -> None:
    with client.open_session() as session:
        with refused(InvalidArgument, "the input is empty; give at least one token"):
            session.append("")
        assert session.info().status.version == 0


@pytest.mark.parametrize("routing_key", ["a b", "x" * 65, "a.b"])
def test_a_malformed_routing_key(client: Client, routing_key: str) -> None:
    with refused(InvalidArgument, "routing_key must be 1 to 64 letters"):
        client.open_session(routing_key=routing_key)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (sessions_pb2.ListSessionsRequest(page_size=1001), "page_size must be at most 1000"),
        (sessions_pb2.ListSessionsRequest(page_token="x"), "page_token is not one that ListSessions returned"),
        (sessions_pb2.ListSessionsRequest(page_token="9" * 5000), "page_token is not one"),
    ],
    ids=["size", "token", "long token"],
)
def test_list_sessions(send: Send, request_: sessions_pb2.ListSessionsRequest, message: str) -> None:
    with refused(InvalidArgument, message):
        send("/ssp.v1.Sessions/ListSessions", request_.SerializeToString())


def sequence(**given: object) -> common_pb2.SequenceInput:
    return common_pb2.SequenceInput(**given)  # type: ignore[arg-type]  # one of its kinds


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "one call takes 1 to 4096 sequences, not 0"),
        ([sequence(text="A")] * 4097, "one call takes 1 to 4096 sequences, not 4097"),
        ([sequence(text="A"), sequence(text="")], "sequence 1: it must have 1 to 1000000 tokens, not 0"),
        ([sequence()], "sequence 0: it must have 1 to 1000000 tokens, not 0"),
        ([*[sequence(text="A")] * 3, sequence(text="ACX")], "sequence 3: letter 'X' at position 2 is not one of A, C"),
        (
            [sequence(text="A"), sequence(input_ids=common_pb2.TokenIds(ids=[5]))],
            "sequence 1: token id 5 is outside the vocabulary: ids are 0 to 4",
        ),
        ([sequence(values=common_pb2.PackedFloats(data=bytes(8), width=2))], "sequence 0: it must be tokens"),
        (
            [sequence(values=common_pb2.PackedFloats(data=bytes(7), width=2))],
            "sequence 0: 7 bytes are no whole number of vectors of 2 float32",
        ),
        ([sequence(values=common_pb2.PackedFloats(data=bytes(8)))], "8 bytes are no whole number of vectors of 0"),
    ],
    ids=["none", "too many", "empty", "absent", "letter", "id", "numbers", "half a number", "no width"],
)
def test_classify(send: Send, inputs: list[common_pb2.SequenceInput], message: str) -> None:
    with refused(InvalidArgument, message):
        send(CLASSIFY, classification_pb2.ClassifyRequest(inputs=inputs).SerializeToString())


def test_classifying_with_a_model_that_generates(client: Client, send: Send) -> None:
    request = classification_pb2.ClassifyRequest(model="writer", inputs=[sequence(text="A")])
    with refused(InvalidArgument, "model 'writer' generates; it cannot classify"):
        send(CLASSIFY, request.SerializeToString())
    with refused(NotFound, "no model is called 'nope'"):
        client.classify(["A"], model="nope")


def test_a_message_that_is_too_large(client: Client) -> None:
    with refused(ResourceExhausted, "larger than max"):
        list(client.generate("x" * (5 << 20)))


@pytest.mark.parametrize("path", [GENERATE, CLASSIFY, "/ssp.v1.Sessions/OpenSession"])
@pytest.mark.parametrize("body", [b"\xff" * 20, b"\x0a\xff\x01", b"\x0a\x02\xc3\x28"], ids=["noise", "cut", "no UTF-8"])
def test_malformed_bytes(send: Send, path: str, body: bytes) -> None:
    with refused(InvalidArgument, r"the request is not a valid \w+Request: malformed bytes, or text that is not UTF-8"):
        send(path, body)


def test_text_that_is_not_utf8_within_a_message(send: Send) -> None:
    body = (
        generation_pb2.GenerateRequest(input=sequence(text="abcd")).SerializeToString().replace(b"abcd", b"ab\xff\xfe")
    )
    with refused(InvalidArgument, "not a valid GenerateRequest"):
        send(GENERATE, body)


def test_an_unknown_method(send: Send) -> None:
    with pytest.raises(SSPError) as missing:
        send("/ssp.v1.Generation/Nothing", b"")
    assert missing.value.code is grpc.StatusCode.UNIMPLEMENTED
