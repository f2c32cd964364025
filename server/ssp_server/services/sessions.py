"""`ssp.v1.Sessions`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from ssp.v1 import sessions_pb2
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions import health
from ssp_runtime.sessions.health import Health
from ssp_runtime.sessions.keeper import Keeper
from ssp_server import wire
from ssp_server.auditing import Auditing
from ssp_server.caller import caller
from ssp_server.readers import Readers
from ssp_server.registry import Registry
from ssp_server.services import step
from ssp_server.services.ownership import take_over
from ssp_server.services.transfer import Transfer

_MAX_PAGE, _DEFAULT_PAGE = 1000, 100


@dataclass(frozen=True, kw_only=True)
class SessionsService:
    registry: Registry
    keeper: Keeper
    readers: Readers
    transfer: Transfer
    auditing: Auditing

    async def OpenSession(self, request: sessions_pb2.OpenSessionRequest) -> sessions_pb2.OpenSessionResponse:
        generator = self.registry.generator(request.model)
        async with self.keeper.room(generator):
            session = self.keeper.manager.open(
                generator, request.routing_key, request.request_id, wire.ttl(request), owner=caller().tenant
            )
        self.auditing.consider(session)
        await self.keeper.commit(session)
        return sessions_pb2.OpenSessionResponse(session=wire.session_info(session, generator))

    async def Append(self, request: sessions_pb2.AppendRequest) -> sessions_pb2.AppendResponse:
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            generator = self.registry.generator(session.model)
            prompt = wire.inputs(request.input, generator)
            if not prompt:
                raise InvalidRequest("the input is empty; give at least one token")
            await take_over(session, request.request_id, generator)
            call = self.keeper.manager.start(
                session,
                prompt,
                None,
                wire.call_options(request, caller()),
                expected_position=wire.expected_position(request),
            )
            last = await self.readers.finish(call, generator.engine)
            await self.keeper.settled(session)
            status = wire.session_status(session, last.position)
            return sessions_pb2.AppendResponse(session=status, usage=wire.usage(call))

    async def Step(self, requests: AsyncIterator[sessions_pb2.StepRequest]) -> AsyncIterator[sessions_pb2.StepResponse]:
        async with aclosing(step.Stream(self.registry, self.keeper, self.readers).responses(requests)) as responses:
            async for response in responses:
                yield response

    async def Fork(self, request: sessions_pb2.ForkRequest) -> sessions_pb2.ForkResponse:
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            generator = self.keeper.manager.generator(session)
            async with self.keeper.room(generator):
                forked = self.keeper.manager.fork(
                    session,
                    routing_key=request.routing_key,
                    request_id=request.request_id,
                    expected_position=wire.expected_position(request),
                )
            await self.keeper.commit(forked)
            return sessions_pb2.ForkResponse(session=wire.session_info(forked, generator))

    async def Checkpoint(self, request: sessions_pb2.CheckpointRequest) -> sessions_pb2.CheckpointResponse:
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            async with self.keeper.room(self.keeper.manager.generator(session)):
                self.keeper.manager.checkpoint(session, request.name, wire.expected_position(request))
            await self.keeper.commit(session)
            return sessions_pb2.CheckpointResponse(session=wire.session_status(session))

    async def Rewind(self, request: sessions_pb2.RewindRequest) -> sessions_pb2.RewindResponse:
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            await self.keeper.checkpoint_in_memory(session, request.name)
            self.keeper.manager.rewind(session, request.name, wire.expected_position(request))
            await self.keeper.commit(session)
            return sessions_pb2.RewindResponse(session=wire.session_status(session))

    async def DropCheckpoint(self, request: sessions_pb2.DropCheckpointRequest) -> sessions_pb2.DropCheckpointResponse:
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            self.keeper.manager.drop_checkpoint(session, request.name)
            await self.keeper.commit(session)
            return sessions_pb2.DropCheckpointResponse()

    async def Peek(self, request: sessions_pb2.PeekRequest) -> sessions_pb2.PeekResponse:
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            generator = self.registry.generator(session.model)
            rows = wire.several_token_ids(request.continuations, generator.tokenizer)
            calls = self.keeper.manager.peek(session, rows, wire.expected_position(request))
            status = wire.session_status(session)
            await self.readers.finish_all(calls, generator.engine)
            return sessions_pb2.PeekResponse(session=status, scores=map(wire.score, calls, rows))

    async def Commit(self, request: sessions_pb2.CommitRequest) -> sessions_pb2.CommitResponse:
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            await self.keeper.commit(session)
            return sessions_pb2.CommitResponse(session=wire.session_status(session))

    def ExportState(self, request: sessions_pb2.ExportStateRequest) -> AsyncIterator[sessions_pb2.ExportStateResponse]:
        return self.transfer.export(request)

    async def ImportState(
        self, requests: AsyncIterator[sessions_pb2.ImportStateRequest]
    ) -> sessions_pb2.ImportStateResponse:
        return await self.transfer.take_in(requests)

    async def GetSession(self, request: sessions_pb2.GetSessionRequest) -> sessions_pb2.GetSessionResponse:
        session = await self.keeper.found(request.session_id, caller().tenant)
        generator = self.keeper.manager.generator(session)
        info = wire.session_info(session, generator)
        if request.with_health and session.resident is not None:
            info.health.CopyFrom(wire.state_health(await _health(session.resident, generator)))
        return sessions_pb2.GetSessionResponse(session=info)

    async def ListSessions(self, request: sessions_pb2.ListSessionsRequest) -> sessions_pb2.ListSessionsResponse:
        if request.model:
            self.registry.find(request.model)
        if request.page_size > _MAX_PAGE:
            raise InvalidRequest(f"page_size must be at most {_MAX_PAGE}, not {request.page_size}")
        manager = self.keeper.manager
        page, following = manager.list(
            request.model, request.page_token, request.page_size or _DEFAULT_PAGE, owner=caller().tenant
        )
        infos = [wire.session_info(session, manager.generator(session)) for session in page]
        return sessions_pb2.ListSessionsResponse(sessions=infos, next_page_token=following)

    async def CloseSession(self, request: sessions_pb2.CloseSessionRequest) -> sessions_pb2.CloseSessionResponse:
        session = await self.keeper.close(request.session_id, caller().tenant)
        return sessions_pb2.CloseSessionResponse(session=wire.session_status(session))


async def _health(sequence: Sequence, generator: Generator) -> Health | None:
    """None if its state is not sound; calls on it are refused then."""
    copy = await asyncio.shield(asyncio.wrap_future(generator.engine.copied(sequence)))
    found = await asyncio.to_thread(health.of, copy, generator)
    if found is None and not sequence.broken and sequence.version == copy.version:
        generator.engine.quarantine(sequence)
    return found
