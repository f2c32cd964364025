"""`ssp.v1.Generation`."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from ssp.v1 import generation_pb2
from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.progress import Progress
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions.checks import check_request_id
from ssp_runtime.sessions.keeper import Keeper
from ssp_runtime.sessions.session import Session
from ssp_server import wire
from ssp_server.caller import caller
from ssp_server.chats import Chats
from ssp_server.readers import Reader, Readers
from ssp_server.registry import Registry
from ssp_server.services.ownership import take_over
from ssp_server.states import SealedStates

Response = generation_pb2.GenerateResponse


@dataclass(frozen=True, kw_only=True)
class GenerationService:
    registry: Registry
    keeper: Keeper
    readers: Readers
    chats: Chats
    states: SealedStates

    async def Generate(self, request: generation_pb2.GenerateRequest) -> AsyncIterator[Response]:
        check_request_id(request.request_id)
        request.request_id = request.request_id or secrets.token_hex(8)
        if request.HasField("expected_position") and not request.session_id:
            raise InvalidRequest("expected_position needs a session_id")
        if request.session_id:
            responses = self._on_session(request)
        elif request.state or request.return_state:
            responses = self._with_state(request)
        else:
            responses = self._once(request)
        async for response in responses:
            yield response

    async def Score(self, request: generation_pb2.ScoreRequest) -> generation_pb2.ScoreResponse:
        generator = self.registry.generator(request.model)
        rows = wire.several_token_ids(request.inputs, generator.tokenizer)
        calls = generator.score(rows, owner=caller().tenant)
        await self.readers.finish_all(calls, generator.engine)
        return generation_pb2.ScoreResponse(scores=map(wire.score, calls, rows))

    async def _on_session(self, request: generation_pb2.GenerateRequest) -> AsyncIterator[Response]:
        params = wire.sampling_params(request.sampling_params)
        if params.n != 1:
            raise InvalidRequest("n must be 1 on a session")
        if request.state or request.return_state:
            raise InvalidRequest("a session keeps its state on the server; leave state and return_state away")
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            generator = self._generator_of(session, request.model)
            if not _is_retry(request, session.sequence):
                _check_start(request, session.sequence)
            prompt = await self._prompt(request, generator)
            await take_over(session, request.request_id, generator)
            call = self.keeper.manager.start(
                session,
                prompt,
                params,
                _options(request, generator),
                expected_position=0 if _begins(request) else wire.expected_position(request),
            )
            reader = self.readers.add(call, generator.engine)
            async for taken in _chunks(reader):
                if taken[-1].finish_reason is not None:
                    await self.keeper.settled(session)
                yield wire.generate_response(call, taken, index=0, session=session)

    def _generator_of(self, session: Session, model: str) -> Generator:
        if model and model != session.model:
            raise InvalidRequest(f"the session belongs to model {session.model!r}, not {model!r}; leave model empty")
        return self.registry.generator(session.model)

    async def _once(self, request: generation_pb2.GenerateRequest) -> AsyncIterator[Response]:
        generator = self.registry.generator(request.model)
        prompt = await self._prompt(request, generator)
        params = wire.sampling_params(request.sampling_params)
        seeds = [(params.seed + i) % 2**64 for i in range(params.n)]
        call_options = _options(request, generator)
        calls = [
            generator.new_call(generator.new_sequence(kept=False), prompt, replace(params, seed=seed), call_options)
            for seed in seeds
        ]
        readers = self._submit(calls, generator)
        streams = [_responses(reader, index=i) for i, reader in enumerate(readers)]
        async for response in streams[0] if len(streams) == 1 else _merged(streams):
            yield response

    async def _with_state(self, request: generation_pb2.GenerateRequest) -> AsyncIterator[Response]:
        params = wire.sampling_params(request.sampling_params)
        if params.n != 1:
            raise InvalidRequest("n must be 1 with a state")
        generator, sequence = await self.states.start(request)
        _check_start(request, sequence)
        prompt = await self._prompt(request, generator)
        call = generator.new_call(sequence, prompt, params, _options(request, generator))
        (reader,) = self._submit([call], generator)
        try:
            async for response in _responses(reader, index=0):
                if response.finish_reason and request.return_state and not call.num_left:
                    response.state = await self.states.sealed(generator, sequence)
                yield response
        finally:
            generator.discard(sequence)

    async def _prompt(self, request: generation_pb2.GenerateRequest, generator: Generator) -> list[int]:
        if not request.HasField("chat"):
            return wire.token_ids(request.input, generator.tokenizer)
        if request.HasField("input"):
            raise InvalidRequest("give a prompt or messages, not both")
        return await self.chats.prompt(request.chat, generator)

    def _submit(self, calls: list[Call], generator: Generator) -> list[Reader]:
        generator.submit_all(calls)
        return [self.readers.add(call, generator.engine) for call in calls]


def _check_start(request: generation_pb2.GenerateRequest, sequence: Sequence) -> None:
    """Raises `InvalidRequest` for messages where something was said before."""
    if request.HasField("chat") and sequence.position:
        raise InvalidRequest(
            f"messages are a whole conversation, and {sequence.position} tokens are held here already; send what is new"
            " as text, or the messages to a new session"
        )


def _is_retry(request: generation_pb2.GenerateRequest, sequence: Sequence) -> bool:
    last = sequence.last_call
    return last is not None and request.request_id == last.options.request_id


def _begins(request: generation_pb2.GenerateRequest) -> bool:
    """Whether it must be the first call on its session, even if another came while its prompt was made."""
    return request.HasField("chat") and not request.HasField("expected_position")


def _options(request: generation_pb2.GenerateRequest, generator: Generator) -> CallOptions:
    options = wire.call_options(request, caller())
    generator.check_inputs(options.received)
    return options


async def _responses(reader: Reader, *, index: int) -> AsyncIterator[Response]:
    async for taken in _chunks(reader):
        yield wire.generate_response(reader.call, taken, index=index, session=None)


async def _chunks(reader: Reader) -> AsyncIterator[list[Progress]]:
    """What the call brings; raises what ended it."""
    chunks = reader.chunks()
    try:
        async for taken in chunks:
            if taken[-1].error is not None:
                raise taken[-1].error
            yield taken
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
