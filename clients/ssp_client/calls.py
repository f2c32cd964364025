"""Every call of the contract as a value: where it goes, what is sent, how the answer reads.

The synchronous and the asyncio client differ only in how they carry a `Call` over.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from google.protobuf.message import Message

from ssp.v1 import admin_pb2, classification_pb2, common_pb2, generation_pb2, models_pb2, sessions_pb2
from ssp_client import health, wire
from ssp_client.batching import Batch, Outcome
from ssp_client.types import (
    ChatMessage,
    GenerateChunk,
    ModelInfo,
    SamplingOptions,
    SamplingParams,
    Score,
    SequenceLike,
    ServerLoad,
    ServingStatus,
    SessionInfo,
    SessionStatus,
    StreamOptions,
    Usage,
)

T = TypeVar("T")
M = TypeVar("M", bound=Message)

# Lets a router send a session's calls to the replica that holds it.
ROUTING_KEY = "ssp-routing-key"


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One call; for a stream, `parse` reads each message."""

    path: str
    body: bytes
    parse: Callable[[bytes], T]
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class SessionPage:
    """A page of ListSessions; `next_page_token` is empty on the last."""

    sessions: tuple[SessionInfo, ...]
    next_page_token: str


def new_request_id() -> str:
    """A name for a call that no other call has."""
    return uuid.uuid4().hex


def make_call(path: str, request: Message, response: type[M], read: Callable[[M], T], routing_key: str = "") -> Call[T]:
    """A call whose messages are of those classes."""
    return Call(
        path=path,
        body=request.SerializeToString(),
        parse=lambda body: read(response.FromString(body)),
        metadata=((ROUTING_KEY, routing_key),) if routing_key else (),
    )


def routing_key_of(session_id: str) -> str:
    """What a router may be told of the session."""
    key = session_id.rpartition(".")[0]
    return key if key.isascii() and key.isprintable() else ""


def sampling(params: SamplingParams | None, options: SamplingOptions) -> SamplingParams:
    """`params` with the keyword arguments put over it."""
    return replace(params or SamplingParams(), **options)


def generate(
    prompt: SequenceLike | None,
    *,
    model: str,
    sampling_params: SamplingParams,
    session_id: str,
    expected_position: int | None,
    request_id: str,
    stream_options: StreamOptions | None,
    priority: int,
    receipt: common_pb2.Receipt | None = None,
    state: bytes = b"",
    return_state: bool = False,
    messages: Sequence[ChatMessage] | None = None,
) -> Call[GenerateChunk]:
    """A stream; on a session without `request_id` it gets a fresh one."""
    request = generation_pb2.GenerateRequest(
        model=model,
        input=None if prompt is None else wire.sequence_to_proto(prompt),
        sampling_params=wire.sampling_to_proto(sampling_params),
        session_id=session_id,
        expected_position=expected_position,
        request_id=request_id or (new_request_id() if session_id else ""),
        stream_options=wire.stream_options_to_proto(stream_options) if stream_options else None,
        priority=priority,
        receipt=receipt,
        state=state,
        return_state=return_state,
        chat=None if messages is None else wire.chat_to_proto(messages),
    )
    path = "/ssp.v1.Generation/Generate"
    return make_call(path, request, generation_pb2.GenerateResponse, wire.chunk_from_proto, routing_key_of(session_id))


def resumed(
    call: Call[GenerateChunk], token_ids: Iterable[int], *, max_tokens: int | None = None
) -> Call[GenerateChunk]:
    """The same Generate again, with the tokens that it has brought; `max_tokens` if it is to end earlier."""
    more = generation_pb2.GenerateRequest(received_ids=token_ids)
    if max_tokens is not None:
        more.sampling_params.max_tokens, more.sampling_params.min_tokens = max_tokens, 0
    return replace(call, body=call.body + more.SerializeToString())  # which merges the two


def score(sequences: Sequence[SequenceLike], *, model: str) -> Call[tuple[Score, ...]]:
    """How likely sequences are; it changes nothing and may be retried."""
    return make_call(
        "/ssp.v1.Generation/Score",
        generation_pb2.ScoreRequest(model=model, inputs=map(wire.sequence_to_proto, sequences)),
        generation_pb2.ScoreResponse,
        lambda response: wire.scores_from_proto(response.scores),
    )


def peek(
    continuations: Sequence[SequenceLike], *, session_id: str, expected_position: int | None
) -> Call[tuple[Score, ...]]:
    """How likely continuations of a session are."""
    return make_call(
        "/ssp.v1.Sessions/Peek",
        sessions_pb2.PeekRequest(
            session_id=session_id,
            continuations=map(wire.sequence_to_proto, continuations),
            expected_position=expected_position,
        ),
        sessions_pb2.PeekResponse,
        lambda response: wire.scores_from_proto(response.scores),
        routing_key_of(session_id),
    )


def classify_many() -> Call[dict[int, Outcome]]:
    """A stream of batches of sequences, whose bodies are `classify_many_body`; gives outcomes by number."""
    response = classification_pb2.ClassifyManyResponse
    return Call(
        path="/ssp.v1.Classification/ClassifyMany",
        body=b"",
        parse=lambda body: wire.outcomes_from_proto(response.FromString(body)),
    )


def classify_many_body(batch: Batch, *, model: str) -> bytes:
    """One message of the stream."""
    sequences = [
        classification_pb2.IndexedSequence(index=index, input=sequence)
        for index, sequence in enumerate(batch.inputs, batch.start)
    ]
    return classification_pb2.ClassifyManyRequest(model=model, sequences=sequences).SerializeToString()


def list_models() -> Call[tuple[ModelInfo, ...]]:
    """Every model of the server."""
    return make_call(
        "/ssp.v1.Models/ListModels",
        models_pb2.ListModelsRequest(),
        models_pb2.ListModelsResponse,
        lambda response: tuple(map(wire.model_from_proto, response.models)),
    )


def get_model(name: str) -> Call[ModelInfo]:
    """One model."""
    return make_call(
        "/ssp.v1.Models/GetModel",
        models_pb2.GetModelRequest(name=name),
        models_pb2.GetModelResponse,
        lambda response: wire.model_from_proto(response.model),
    )


def load_model(name: str, folder: str) -> Call[ModelInfo]:
    """Loads a model from the server's disk."""
    return make_call(
        "/ssp.v1.Models/LoadModel",
        models_pb2.LoadModelRequest(name=name, folder=folder),
        models_pb2.LoadModelResponse,
        lambda response: wire.model_from_proto(response.model),
    )


def unload_model(name: str, *, force: bool) -> Call[int]:
    """Takes a model away; the answer is how many sessions were closed."""
    return make_call(
        "/ssp.v1.Models/UnloadModel",
        models_pb2.UnloadModelRequest(name=name, force=force),
        models_pb2.UnloadModelResponse,
        lambda response: response.closed_sessions,
    )


def get_loads() -> Call[ServerLoad]:
    """How busy the server is."""
    return make_call(
        "/ssp.v1.Admin/GetLoads", admin_pb2.GetLoadsRequest(), admin_pb2.GetLoadsResponse, wire.load_from_proto
    )


def drain(*, resume: bool) -> Call[int]:
    """Takes the server out of service, or back; the answer is how many calls are under way."""
    return make_call(
        "/ssp.v1.Admin/Drain",
        admin_pb2.DrainRequest(resume=resume),
        admin_pb2.DrainResponse,
        lambda response: response.calls,
    )


def open_session(*, model: str, routing_key: str, request_id: str, ttl: float | None) -> Call[SessionInfo]:
    """A new session; without `request_id` the call gets a fresh one."""
    return make_call(
        "/ssp.v1.Sessions/OpenSession",
        sessions_pb2.OpenSessionRequest(
            model=model,
            routing_key=routing_key,
            request_id=request_id or new_request_id(),
            ttl=None if ttl is None else wire.duration_to_proto(ttl),
        ),
        sessions_pb2.OpenSessionResponse,
        lambda response: wire.session_from_proto(response.session),
        routing_key,
    )


def append(
    sequence: SequenceLike,
    *,
    session_id: str,
    expected_position: int | None,
    request_id: str,
    priority: int,
    receipt: common_pb2.Receipt | None = None,
) -> Call[tuple[SessionStatus, Usage]]:
    """Folds a sequence into a session; without `request_id` the call gets a fresh one."""
    request = sessions_pb2.AppendRequest(
        session_id=session_id,
        input=wire.sequence_to_proto(sequence),
        expected_position=expected_position,
        request_id=request_id or new_request_id(),
        priority=priority,
        receipt=receipt,
    )
    return make_call(
        "/ssp.v1.Sessions/Append",
        request,
        sessions_pb2.AppendResponse,
        lambda response: (wire.status_from_proto(response.session), wire.usage_from_proto(response.usage)),
        routing_key_of(session_id),
    )


def step(*, session_id: str, expected_position: int | None, top_logprobs: int) -> Call[wire.StepPart]:
    """A stream of inputs, whose bodies are `step_body`."""
    return make_call(
        "/ssp.v1.Sessions/Step",
        sessions_pb2.StepRequest(session_id=session_id, expected_position=expected_position, top_logprobs=top_logprobs),
        sessions_pb2.StepResponse,
        wire.step_part_from_proto,
        routing_key_of(session_id),
    )


def step_body(sequence: SequenceLike) -> bytes:
    """One message of the stream, after the first."""
    return sessions_pb2.StepRequest(input=wire.sequence_to_proto(sequence)).SerializeToString()


def fork(*, session_id: str, routing_key: str, expected_position: int | None, request_id: str) -> Call[SessionInfo]:
    """Another session that stands where this one does; without `request_id` the call gets a fresh one."""
    return make_call(
        "/ssp.v1.Sessions/Fork",
        sessions_pb2.ForkRequest(
            session_id=session_id,
            routing_key=routing_key,
            expected_position=expected_position,
            request_id=request_id or new_request_id(),
        ),
        sessions_pb2.ForkResponse,
        lambda response: wire.session_from_proto(response.session),
        routing_key_of(session_id),
    )


def checkpoint(name: str, *, session_id: str, expected_position: int | None) -> Call[SessionStatus]:
    """Keeps a session's state under a name."""
    return make_call(
        "/ssp.v1.Sessions/Checkpoint",
        sessions_pb2.CheckpointRequest(session_id=session_id, name=name, expected_position=expected_position),
        sessions_pb2.CheckpointResponse,
        lambda response: wire.status_from_proto(response.session),
        routing_key_of(session_id),
    )


def rewind(name: str, *, session_id: str, expected_position: int | None = None) -> Call[SessionStatus]:
    """Puts a session back to a checkpoint."""
    return make_call(
        "/ssp.v1.Sessions/Rewind",
        sessions_pb2.RewindRequest(session_id=session_id, name=name, expected_position=expected_position),
        sessions_pb2.RewindResponse,
        lambda response: wire.status_from_proto(response.session),
        routing_key_of(session_id),
    )


def drop_checkpoint(name: str, *, session_id: str) -> Call[None]:
    """Frees a checkpoint."""
    return make_call(
        "/ssp.v1.Sessions/DropCheckpoint",
        sessions_pb2.DropCheckpointRequest(session_id=session_id, name=name),
        sessions_pb2.DropCheckpointResponse,
        lambda _: None,
        routing_key_of(session_id),
    )


def commit(session_id: str) -> Call[SessionStatus]:
    """Has the server save a session."""
    return make_call(
        "/ssp.v1.Sessions/Commit",
        sessions_pb2.CommitRequest(session_id=session_id),
        sessions_pb2.CommitResponse,
        lambda response: wire.status_from_proto(response.session),
        routing_key_of(session_id),
    )


def get_session(session_id: str, *, with_health: bool = False) -> Call[SessionInfo]:
    """Where a session stands."""
    return make_call(
        "/ssp.v1.Sessions/GetSession",
        sessions_pb2.GetSessionRequest(session_id=session_id, with_health=with_health),
        sessions_pb2.GetSessionResponse,
        lambda response: wire.session_from_proto(response.session),
        routing_key_of(session_id),
    )


def list_sessions(*, model: str, page_size: int, page_token: str) -> Call[SessionPage]:
    """One page of sessions, oldest first."""
    return make_call(
        "/ssp.v1.Sessions/ListSessions",
        sessions_pb2.ListSessionsRequest(model=model, page_size=page_size, page_token=page_token),
        sessions_pb2.ListSessionsResponse,
        lambda response: SessionPage(
            sessions=tuple(map(wire.session_from_proto, response.sessions)), next_page_token=response.next_page_token
        ),
    )


def close_session(session_id: str) -> Call[SessionStatus]:
    """Ends a session; the answer is where it stood."""
    return make_call(
        "/ssp.v1.Sessions/CloseSession",
        sessions_pb2.CloseSessionRequest(session_id=session_id),
        sessions_pb2.CloseSessionResponse,
        lambda response: wire.status_from_proto(response.session),
        routing_key_of(session_id),
    )


def check_health(service: str) -> Call[ServingStatus]:
    """grpc.health.v1; it is never retried, a probe wants to know now."""
    return Call(path=health.CHECK, body=health.encode_request(service), parse=health.decode_response)
