"""A small server of the contract for the client's tests: real sockets, no model.

Generation counts: after a context of p tokens the next tokens are p, p + 1, ...; the text of token t is "t ".
Classification knows the letters ACGT; a sequence's class is its length modulo two. Every masked place may be A, C, G or
T, whose log-probabilities are -1, -2, -3 and -4.
"""

# ruff: noqa: N802 (servicers' methods are named as in the contract)

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from ssp.v1 import (
    classification_pb2,
    classification_pb2_grpc,
    common_pb2,
    filling_pb2,
    filling_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from tests.ssp_client import fake_messages


@dataclass(kw_only=True)
class Failure:
    """What the next call of a method answers instead of its result, after `after` messages of a stream."""

    code: grpc.StatusCode
    message: str = "planted"
    reason: str = ""
    retry_after: float | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    after: int = 0

    def abort(self, context: Any) -> NoReturn:
        details = []
        if self.reason or self.metadata:
            details.append(error_details_pb2.ErrorInfo(reason=self.reason, domain="ssp", metadata=self.metadata))
        if self.retry_after is not None:
            delay = Duration(nanos=int(self.retry_after % 1 * 1e9), seconds=int(self.retry_after))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=code_pb2.Code.Value(self.code.name), message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError


class FakeServer(
    generation_pb2_grpc.GenerationServicer,
    sessions_pb2_grpc.SessionsServicer,
    classification_pb2_grpc.ClassificationServicer,
    filling_pb2_grpc.FillingServicer,
    models_pb2_grpc.ModelsServicer,
):
    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.metadata: list[dict[str, str | bytes]] = []
        self.failures: dict[str, list[Failure]] = defaultdict(list)
        self.positions: dict[str, int] = {}
        self.checkpoints: dict[tuple[str, str], int] = {}
        self.cancelled = threading.Event()
        self.seconds_per_chunk = 0.0
        self.saves = True  # sessions, at every token
        self.max_message_bytes = 4000
        self.state_bytes = 8  # of an exported state, as it is announced
        self._answers: dict[str, list[generation_pb2.GenerateResponse]] = {}
        self.health = health.HealthServicer()
        self._servers: list[grpc.Server] = []
        self.set_health("", health_pb2.HealthCheckResponse.SERVING)
        self.port = self._add(None)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add_tls(self, key: bytes, certificate: bytes) -> int:
        return self._add(grpc.ssl_server_credentials([(key, certificate)]))

    def stop(self) -> None:
        for server in self._servers:
            server.stop(0).wait()

    def _add(self, credentials: grpc.ServerCredentials | None) -> int:
        server = grpc.server(futures.ThreadPoolExecutor(16))
        generation_pb2_grpc.add_GenerationServicer_to_server(self, server)
        sessions_pb2_grpc.add_SessionsServicer_to_server(self, server)
        classification_pb2_grpc.add_ClassificationServicer_to_server(self, server)
        filling_pb2_grpc.add_FillingServicer_to_server(self, server)
        models_pb2_grpc.add_ModelsServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        address = "127.0.0.1:0"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        self._servers.append(server)
        return port

    def lose(self, session_id: str) -> None:
        """All that was done since the session was opened, as if it had never been."""
        self.positions[session_id] = 0
        self._answers.clear()

    def set_health(self, service: str, status: Any) -> None:
        self.health.set(service, status)

    def Generate(
        self, request: generation_pb2.GenerateRequest, context: Any
    ) -> Iterator[generation_pb2.GenerateResponse]:
        failure = self._enter("Generate", request, context)
        finished = threading.Event()
        context.add_callback(lambda: None if finished.is_set() else self.cancelled.set())
        if failure and not failure.after:
            failure.abort(context)
        for number, message in enumerate(self._messages(request, context)):
            if failure and number == failure.after:
                failure.abort(context)
            if not context.is_active():  # who read has gone
                return
            if request.session_id:
                self.positions[request.session_id] = message.session.position
            if not self.saves:
                message.session.ClearField("committed_position")
            yield message
            time.sleep(self.seconds_per_chunk)
        finished.set()

    def _messages(
        self, request: generation_pb2.GenerateRequest, context: Any
    ) -> Iterator[generation_pb2.GenerateResponse]:
        if request.request_id in self._answers:
            return iter(fake_messages.merged(self._answers[request.request_id]))
        position = self._position(request, context) + fake_messages.length(request.input)
        count = request.sampling_params.max_tokens or 4
        size = request.stream_options.max_chunk_tokens or 2
        made = (fake_messages.message(request, position, start, size, count) for start in range(0, count, size))
        if not request.session_id:
            return made
        self._answers[request.request_id] = list(made)
        return iter(self._answers[request.request_id])

    def OpenSession(self, request: sessions_pb2.OpenSessionRequest, context: Any) -> sessions_pb2.OpenSessionResponse:
        self._unary("OpenSession", request, context)
        session_id = f"{request.routing_key or 'r'}.{len(self.positions):032x}"
        self.positions[session_id] = 0
        return sessions_pb2.OpenSessionResponse(session=self._session(session_id))

    def Append(self, request: sessions_pb2.AppendRequest, context: Any) -> sessions_pb2.AppendResponse:
        self._unary("Append", request, context)
        position = self._position(request, context) + fake_messages.length(request.input)
        self.positions[request.session_id] = position
        usage = common_pb2.Usage(prompt_tokens=fake_messages.length(request.input))
        return sessions_pb2.AppendResponse(session=fake_messages.status(request.session_id, position), usage=usage)

    def Fork(self, request: sessions_pb2.ForkRequest, context: Any) -> sessions_pb2.ForkResponse:
        self._unary("Fork", request, context)
        session_id = f"{request.routing_key or 'f'}.{len(self.positions):032x}"
        self.positions[session_id] = self._position(request, context)
        return sessions_pb2.ForkResponse(session=self._session(session_id))

    def ExportState(
        self, request: sessions_pb2.ExportStateRequest, context: Any
    ) -> Iterator[sessions_pb2.ExportStateResponse]:
        """A state is the session's position, in eight bytes."""
        failure = self._enter("ExportState", request, context)
        position = self._position(request, context)
        state = position.to_bytes(8, "little")
        yield sessions_pb2.ExportStateResponse(position=position, total_bytes=self.state_bytes)
        yield sessions_pb2.ExportStateResponse(data=state[:4])
        if failure:
            failure.abort(context)
        yield sessions_pb2.ExportStateResponse(data=state[4:])

    def ImportState(
        self, requests: Iterator[sessions_pb2.ImportStateRequest], context: Any
    ) -> sessions_pb2.ImportStateResponse:
        first = next(requests)
        self._unary("ImportState", first, context)
        session_id = f"{first.routing_key or 'i'}.{len(self.positions):032x}"
        state = first.data + b"".join(request.data for request in requests)
        self.positions[session_id] = int.from_bytes(state, "little")
        return sessions_pb2.ImportStateResponse(session=self._session(session_id))

    def Checkpoint(self, request: sessions_pb2.CheckpointRequest, context: Any) -> sessions_pb2.CheckpointResponse:
        self._unary("Checkpoint", request, context)
        position = self.checkpoints[request.session_id, request.name] = self._position(request, context)
        return sessions_pb2.CheckpointResponse(session=fake_messages.status(request.session_id, position))

    def Rewind(self, request: sessions_pb2.RewindRequest, context: Any) -> sessions_pb2.RewindResponse:
        self._unary("Rewind", request, context)
        self._position(request, context)
        position = self.positions[request.session_id] = self.checkpoints[request.session_id, request.name]
        return sessions_pb2.RewindResponse(session=fake_messages.status(request.session_id, position))

    def Peek(self, request: sessions_pb2.PeekRequest, context: Any) -> sessions_pb2.PeekResponse:
        self._unary("Peek", request, context)
        position = self._position(request, context)
        scores = [fake_messages.score(continuation) for continuation in request.continuations]
        return sessions_pb2.PeekResponse(session=fake_messages.status(request.session_id, position), scores=scores)

    def Score(self, request: generation_pb2.ScoreRequest, context: Any) -> generation_pb2.ScoreResponse:
        self._unary("Score", request, context)
        return generation_pb2.ScoreResponse(scores=map(fake_messages.score, request.inputs))

    def DropCheckpoint(
        self, request: sessions_pb2.DropCheckpointRequest, context: Any
    ) -> sessions_pb2.DropCheckpointResponse:
        self._unary("DropCheckpoint", request, context)
        del self.checkpoints[request.session_id, request.name]
        return sessions_pb2.DropCheckpointResponse()

    def Step(self, requests: Iterator[sessions_pb2.StepRequest], context: Any) -> Iterator[sessions_pb2.StepResponse]:
        """Every input comes back."""
        self.metadata.append(dict(context.invocation_metadata()))
        for request in requests:
            self.requests["Step"].append(request)
            yield sessions_pb2.StepResponse(outputs=request.input.values)

    def Commit(self, request: sessions_pb2.CommitRequest, context: Any) -> sessions_pb2.CommitResponse:
        self._unary("Commit", request, context)
        return sessions_pb2.CommitResponse(
            session=fake_messages.status(request.session_id, self._position(request, context))
        )

    def GetSession(self, request: sessions_pb2.GetSessionRequest, context: Any) -> sessions_pb2.GetSessionResponse:
        self._unary("GetSession", request, context)
        self._position(request, context)
        return sessions_pb2.GetSessionResponse(session=self._session(request.session_id))

    def ListSessions(
        self, request: sessions_pb2.ListSessionsRequest, context: Any
    ) -> sessions_pb2.ListSessionsResponse:
        self._unary("ListSessions", request, context)
        start, size = int(request.page_token or 0), request.page_size or 100
        names = list(self.positions)
        return sessions_pb2.ListSessionsResponse(
            sessions=[self._session(name) for name in names[start : start + size]],
            next_page_token=str(start + size) if start + size < len(names) else "",
        )

    def CloseSession(
        self, request: sessions_pb2.CloseSessionRequest, context: Any
    ) -> sessions_pb2.CloseSessionResponse:
        self._unary("CloseSession", request, context)
        position = self._position(request, context)
        del self.positions[request.session_id]
        return sessions_pb2.CloseSessionResponse(session=fake_messages.status(request.session_id, position))

    def Classify(
        self, request: classification_pb2.ClassifyRequest, context: Any
    ) -> classification_pb2.ClassifyResponse:
        self._unary("Classify", request, context)
        predictions = [fake_messages.prediction(fake_messages.length(sequence)) for sequence in request.inputs]
        return classification_pb2.ClassifyResponse(labels=fake_messages.LABELS, predictions=predictions)

    def ClassifyMany(
        self, requests: Iterator[classification_pb2.ClassifyManyRequest], context: Any
    ) -> Iterator[classification_pb2.ClassifyManyResponse]:
        """Every second message is answered before the first."""
        failure = self.failures["ClassifyMany"].pop(0) if self.failures["ClassifyMany"] else None
        held = None
        for number, request in enumerate(requests):
            if failure and number == failure.after:
                failure.abort(context)
            self.requests["ClassifyMany"].append(request)
            response = classification_pb2.ClassifyManyResponse(
                labels=fake_messages.LABELS, results=map(fake_messages.result, request.sequences)
            )
            if held is None:
                held = response
            else:
                yield response
                yield held
                held = None
        if held is not None:
            yield held

    def Fill(self, request: filling_pb2.FillRequest, context: Any) -> filling_pb2.FillResponse:
        self._unary("Fill", request, context)
        top = request.top if request.HasField("top") else 2
        return filling_pb2.FillResponse(
            sequences=[fake_messages.filled(sequence, top) for sequence in request.sequences]
        )

    def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        self._unary("ListModels", request, context)
        return models_pb2.ListModelsResponse(models=[self._model("counter"), self._model("parity")])

    def GetModel(self, request: models_pb2.GetModelRequest, context: Any) -> models_pb2.GetModelResponse:
        self._unary("GetModel", request, context)
        if request.name not in ("counter", "parity"):
            Failure(code=grpc.StatusCode.NOT_FOUND, message=f"no model {request.name!r}").abort(context)
        return models_pb2.GetModelResponse(model=self._model(request.name))

    def LoadModel(self, request: models_pb2.LoadModelRequest, context: Any) -> models_pb2.LoadModelResponse:
        self._unary("LoadModel", request, context)
        return models_pb2.LoadModelResponse(model=self._model(request.name))

    def UnloadModel(self, request: models_pb2.UnloadModelRequest, context: Any) -> models_pb2.UnloadModelResponse:
        self._unary("UnloadModel", request, context)
        return models_pb2.UnloadModelResponse()

    def _model(self, name: str) -> models_pb2.Model:
        classifies = name == "parity"
        return models_pb2.Model(
            name=name,
            task=models_pb2.TASK_CLASSIFY if classifies else models_pb2.TASK_GENERATE,
            input_kind=models_pb2.INPUT_KIND_TOKENS,
            architecture="1 x count",
            form="recurrent",
            num_parameters=1_234_567,
            vocab_size=256,
            labels=fake_messages.LABELS if classifies else (),
            state_bytes_per_session=0 if classifies else 2048,
            limits=models_pb2.Limits(
                max_tokens=1000,
                max_input_tokens=5000,
                max_batch_sequences=4,
                max_message_bytes=self.max_message_bytes,
            ),
        )

    def _enter(self, method: str, request: Any, context: Any) -> Failure | None:
        self.requests[method].append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return self.failures[method].pop(0) if self.failures[method] else None

    def _unary(self, method: str, request: Any, context: Any) -> None:
        failure = self._enter(method, request, context)
        if failure:
            failure.abort(context)

    def _position(self, request: Any, context: Any) -> int:
        if not request.session_id:
            return 0
        if request.session_id not in self.positions:
            Failure(code=grpc.StatusCode.NOT_FOUND, message="no such session").abort(context)
        position = self.positions[request.session_id]
        expected = request.expected_position if fake_messages.expects(request) else position
        if expected != position:
            message = f"the session stands at {position}, not at {expected}"
            Failure(code=grpc.StatusCode.ABORTED, message=message, reason="POSITION_MISMATCH").abort(context)
        return position

    def _session(self, session_id: str) -> sessions_pb2.Session:
        session = sessions_pb2.Session(
            status=fake_messages.status(session_id, self.positions[session_id]),
            model="counter",
            tier=sessions_pb2.TIER_DEVICE,
            state_bytes=2048,
        )
        if not self.saves:
            session.status.ClearField("committed_position")
        session.create_time.FromSeconds(1_700_000_000)
        return session
