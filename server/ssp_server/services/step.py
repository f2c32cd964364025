"""A session that is fed bit by bit, each bit answered at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import numpy as np

from ssp.v1 import common_pb2, sessions_pb2
from ssp_runtime.engine.call import CallOptions, Input
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.stepping import SteppingCall
from ssp_runtime.errors import InvalidRequest, StreamCut
from ssp_runtime.sessions.keeper import Keeper
from ssp_runtime.sessions.session import Session
from ssp_server import wire
from ssp_server.caller import caller
from ssp_server.readers import Readers
from ssp_server.registry import Registry
from ssp_server.services.answers import Answer, Answers

Request = sessions_pb2.StepRequest
Response = sessions_pb2.StepResponse


class Stream:
    """One call. What is wrong with a request is told when those before it are answered."""

    def __init__(self, registry: Registry, keeper: Keeper, readers: Readers) -> None:
        self._registry, self._keeper, self._readers = registry, keeper, readers
        self._answers = Answers()
        self._refusal: Exception | None = None

    async def responses(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Response]:
        first = await anext(requests, Request())
        if not first.session_id:
            raise InvalidRequest("the first message of the stream must name the session")
        async with self._keeper.using(first.session_id, caller().tenant) as session:
            generator = self._registry.generator(session.model)
            inputs = _checked(first, generator)
            call = self._start(first, session)
            self._feed(call, inputs, generator)
            reading = asyncio.create_task(self._read(requests, call, generator))
            try:
                async with aclosing(self._write(call, session, generator)) as answers:
                    async for response in answers:
                        yield response
            finally:
                call.leave()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    def _start(self, first: Request, session: Session) -> SteppingCall:
        who, expected = caller(), wire.expected_position(first)
        options = CallOptions(owner=who.tenant, deadline=who.deadline)
        return self._keeper.manager.step(session, options, expected, top=first.top_logprobs)

    # From the client

    async def _read(self, requests: AsyncIterator[Request], call: SteppingCall, generator: Generator) -> None:
        try:
            await self._answers.room()
            async for request in requests:
                self._registry.generator(generator.name)  # which may have begun to drain
                self._feed(call, _following(request, generator), generator)
                await self._answers.room()
        except Exception as error:  # raised again at the end, where the call is answered
            self._refusal = error
        generator.engine.feed(call, (), last=True)

    def _feed(self, call: SteppingCall, inputs: list[Input], generator: Generator) -> None:
        if inputs:
            self._answers.expect(len(inputs))
            generator.engine.feed(call, inputs)

    # To the client

    async def _write(self, call: SteppingCall, session: Session, generator: Generator) -> AsyncGenerator[Response]:
        reader = self._readers.add(call, generator.engine)
        async with aclosing(reader.chunks()) as chunks:  # type: ignore[type-var]  # an async generator
            async for taken in chunks:
                for progress in taken:
                    for answer in self._answers.of(progress):
                        yield _response(answer, session)
                if taken[-1].finish_reason is not None:
                    yield await self._last(taken[-1], session)

    async def _last(self, progress: Progress, session: Session) -> Response:
        """Where the session stands, saved; raises what ended the call before its time."""
        if progress.error is not None:
            raise progress.error
        if progress.finish_reason is FinishReason.ABORT:
            raise self._cut(session)
        await self._keeper.settled(session)
        if self._refusal is not None:
            raise self._refusal
        return Response(session=wire.session_status(session))

    def _cut(self, session: Session) -> Exception:
        """Why it was cut. Raises `UnknownSession` if the session was closed, or `Draining`."""
        self._keeper.manager.generator(session)
        self._registry.generator(session.model)
        return StreamCut("the outputs were not read for too long; the session stands at the last that was computed")


def _checked(request: Request, generator: Generator) -> list[Input]:
    inputs = wire.inputs(request.input, generator)
    generator.check_inputs(inputs)
    return inputs


def _following(request: Request, generator: Generator) -> list[Input]:
    """The input of a message that is not the first."""
    if request.session_id or request.HasField("expected_position") or request.top_logprobs:
        raise InvalidRequest("session_id, expected_position and top_logprobs are for the stream's first message only")
    inputs = _checked(request, generator)
    if not inputs:
        raise InvalidRequest("the input is empty; give at least one token or vector")
    return inputs


def _response(answer: Answer, session: Session) -> Response:
    status = wire.session_status(session, answer.position)
    if answer.top_ids is not None:
        return Response(session=status, top=_top(answer.top_ids, answer.outputs), num_left=answer.num_left)
    data, width = np.ascontiguousarray(answer.outputs, "<f4").tobytes(), answer.outputs.shape[1]
    outputs = common_pb2.PackedFloats(data=data, width=width)
    return Response(session=status, outputs=outputs, num_left=answer.num_left)


def _top(ids: np.ndarray, logprobs: np.ndarray) -> list[sessions_pb2.TopLogprobs]:
    pairs = zip(ids.tolist(), logprobs.tolist(), strict=True)
    return [sessions_pb2.TopLogprobs(token_ids=tokens, logprobs=values) for tokens, values in pairs]
