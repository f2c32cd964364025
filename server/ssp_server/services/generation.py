"""`ssp.v1.Generation`."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from ssp.v1 import generation_pb2
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Call
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions.manager import SessionManager, check_request_id
from ssp_runtime.sessions.session import Session
from ssp_server import wire
from ssp_server.readers import ChunkOptions, Reader, Readers, chunk_options
from ssp_server.registry import Registry
from ssp_server.services.ownership import take_over

Response = generation_pb2.GenerateResponse


@dataclass(frozen=True, kw_only=True)
class GenerationService:
    registry: Registry
    sessions: SessionManager
    readers: Readers

    async def Generate(self, request: generation_pb2.GenerateRequest) -> AsyncIterator[Response]:
        options = chunk_options(request.stream_options)
        check_request_id(request.request_id)
        request_id = request.request_id or secrets.token_hex(8)
        if request.session_id:
            responses = self._on_session(request, request_id, options)
        else:
            responses = self._once(request, request_id, options)
        async for response in responses:
            yield response

    async def Score(self, request: generation_pb2.ScoreRequest) -> generation_pb2.ScoreResponse:
        generator = self.registry.generator(request.model)
        rows = wire.several_token_ids(request.inputs, generator.tokenizer)
        calls = generator.score(rows)
        await self.readers.finish_all(calls, generator.engine)
        return generation_pb2.ScoreResponse(scores=map(wire.score, calls, rows))

    async def _on_session(
        self, request: generation_pb2.GenerateRequest, request_id: str, options: ChunkOptions
    ) -> AsyncIterator[Response]:
        session = self.sessions.get(request.session_id)
        generator = self._generator_of(session, request.model)
        params = wire.sampling_params(request.sampling_params)
        if params.n != 1:
            raise InvalidRequest("n must be 1 on a session")
        await take_over(session, request.request_id, generator)
        call = self.sessions.start(
            session,
            wire.token_ids(request.input, generator.tokenizer),
            params,
            request_id=request.request_id,
            expected_position=wire.expected_position(request),
        )
        reader = self.readers.add(call, generator.engine, options)
        async for response in _responses(reader, request_id=request_id, index=0, session=session):
            yield response

    def _generator_of(self, session: Session, model: str) -> Generator:
        if model and model != session.model:
            raise InvalidRequest(f"the session belongs to model {session.model!r}, not {model!r}; leave model empty")
        return self.registry.generator(session.model)

    async def _once(
        self, request: generation_pb2.GenerateRequest, request_id: str, options: ChunkOptions
    ) -> AsyncIterator[Response]:
        if request.HasField("expected_position"):
            raise InvalidRequest("expected_position needs a session_id")
        generator = self.registry.generator(request.model)
        prompt = wire.token_ids(request.input, generator.tokenizer)
        params = wire.sampling_params(request.sampling_params)
        seeds = [(params.seed + i) % 2**64 for i in range(params.n)]
        calls = [
            generator.new_call(generator.new_sequence(kept=False), prompt, replace(params, seed=seed)) for seed in seeds
        ]
        streams = [
            _responses(reader, request_id=request_id, index=i, session=None)
            for i, reader in enumerate(self._submit(calls, generator, options))
        ]
        async for response in streams[0] if len(streams) == 1 else _merged(streams):
            yield response

    def _submit(self, calls: list[Call], generator: Generator, options: ChunkOptions) -> list[Reader]:
        generator.submit_all(calls)
        return [self.readers.add(call, generator.engine, options) for call in calls]


async def _responses(
    reader: Reader, *, request_id: str, index: int, session: Session | None
) -> AsyncIterator[Response]:
    chunks = reader.chunks()
    try:
        async for taken in chunks:
            if taken[-1].error is not None:
                raise taken[-1].error
            yield wire.generate_response(reader.call, taken, request_id=request_id, index=index, session=session)
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]  # an async generator


async def _merged(streams: list[AsyncIterator[Response]]) -> AsyncIterator[Response]:
    """The messages of all streams, as they come."""
    queue: asyncio.Queue[Response | Exception | None] = asyncio.Queue(maxsize=1)

    async def pump(stream: AsyncIterator[Response]) -> None:
        try:
            async for response in stream:
                await queue.put(response)
            await queue.put(None)
        except Exception as error:  # raised again below, where the call is answered
            await queue.put(error)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # an async generator

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
