"""`ssp.v1.Sessions`."""

from dataclasses import dataclass

from ssp.v1 import sessions_pb2
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions.manager import SessionManager
from ssp_server import wire
from ssp_server.readers import Readers
from ssp_server.registry import Registry
from ssp_server.services.ownership import take_over

_MAX_PAGE, _DEFAULT_PAGE = 1000, 100


@dataclass(frozen=True, kw_only=True)
class SessionsService:
    registry: Registry
    sessions: SessionManager
    readers: Readers

    async def OpenSession(self, request: sessions_pb2.OpenSessionRequest) -> sessions_pb2.OpenSessionResponse:
        generator = self.registry.generator(request.model)
        session = self.sessions.open(generator, request.routing_key, request.request_id, wire.ttl(request))
        return sessions_pb2.OpenSessionResponse(session=wire.session_info(session, generator))

    async def Append(self, request: sessions_pb2.AppendRequest) -> sessions_pb2.AppendResponse:
        session = self.sessions.get(request.session_id)
        generator = self.registry.generator(session.model)
        prompt = wire.token_ids(request.input, generator.tokenizer)
        if not prompt:
            raise InvalidRequest("the input is empty; give at least one token")
        await take_over(session, request.request_id, generator)
        call = self.sessions.start(
            session,
            prompt,
            None,
            request_id=request.request_id,
            expected_position=wire.expected_position(request),
        )
        last = await self.readers.finish(call, generator.engine)
        return sessions_pb2.AppendResponse(session=wire.session_status(session, last.position), usage=wire.usage(call))

    async def Fork(self, request: sessions_pb2.ForkRequest) -> sessions_pb2.ForkResponse:
        session = self.sessions.get(request.session_id)
        forked = self.sessions.fork(
            session,
            routing_key=request.routing_key,
            request_id=request.request_id,
            expected_position=wire.expected_position(request),
        )
        return sessions_pb2.ForkResponse(session=wire.session_info(forked, self.sessions.generator(forked)))

    async def Checkpoint(self, request: sessions_pb2.CheckpointRequest) -> sessions_pb2.CheckpointResponse:
        session = self.sessions.get(request.session_id)
        self.sessions.checkpoint(session, request.name, wire.expected_position(request))
        return sessions_pb2.CheckpointResponse(session=wire.session_status(session))

    async def Rewind(self, request: sessions_pb2.RewindRequest) -> sessions_pb2.RewindResponse:
        session = self.sessions.get(request.session_id)
        self.sessions.rewind(session, request.name, wire.expected_position(request))
        return sessions_pb2.RewindResponse(session=wire.session_status(session))

    async def Peek(self, request: sessions_pb2.PeekRequest) -> sessions_pb2.PeekResponse:
        session = self.sessions.get(request.session_id)
        generator = self.registry.generator(session.model)
        rows = wire.several_token_ids(request.continuations, generator.tokenizer)
        calls = self.sessions.peek(session, rows, wire.expected_position(request))
        status = wire.session_status(session)
        await self.readers.finish_all(calls, generator.engine)
        return sessions_pb2.PeekResponse(session=status, scores=map(wire.score, calls, rows))

    async def DropCheckpoint(self, request: sessions_pb2.DropCheckpointRequest) -> sessions_pb2.DropCheckpointResponse:
        self.sessions.drop_checkpoint(self.sessions.get(request.session_id), request.name)
        return sessions_pb2.DropCheckpointResponse()

    async def GetSession(self, request: sessions_pb2.GetSessionRequest) -> sessions_pb2.GetSessionResponse:
        session = self.sessions.get(request.session_id)
        info = wire.session_info(session, self.sessions.generator(session))
        return sessions_pb2.GetSessionResponse(session=info)

    async def ListSessions(self, request: sessions_pb2.ListSessionsRequest) -> sessions_pb2.ListSessionsResponse:
        if request.model:
            self.registry.find(request.model)
        if request.page_size > _MAX_PAGE:
            raise InvalidRequest(f"page_size must be at most {_MAX_PAGE}, not {request.page_size}")
        page, following = self.sessions.list(request.model, request.page_token, request.page_size or _DEFAULT_PAGE)
        infos = [wire.session_info(session, self.sessions.generator(session)) for session in page]
        return sessions_pb2.ListSessionsResponse(sessions=infos, next_page_token=following)

    async def CloseSession(self, request: sessions_pb2.CloseSessionRequest) -> sessions_pb2.CloseSessionResponse:
        session = self.sessions.close(request.session_id)
        return sessions_pb2.CloseSessionResponse(session=wire.session_status(session))
