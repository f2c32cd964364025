"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, Unpack, overload

from ssp_client import calls, filling, state_calls
from ssp_client.aio.classify import AsyncClassifier
from ssp_client.aio.session import AsyncSession
from ssp_client.aio.stream import AsyncGenerateStream
from ssp_client.aio.transport import AsyncTransport
from ssp_client.batching import Outcome, budget, check_collection, choose_classifier
from ssp_client.channel import Connection, default_target
from ssp_client.completion import Completion, Gathering
from ssp_client.cursor import Cursor
from ssp_client.errors import Unavailable
from ssp_client.files import FileLike, contents
from ssp_client.types import (
    ChatMessage,
    Filling,
    ModelInfo,
    Prediction,
    SamplingOptions,
    SamplingParams,
    Score,
    SequenceLike,
    ServerLoad,
    ServingStatus,
    SessionInfo,
    StreamOptions,
)
from ssp_client.window import LOOK_AHEAD


class AsyncClient:
    """A connection to one server, made with the first call; of the event loop that makes it.

        async with AsyncClient() as client:
            async for chunk in client.generate("Once upon a time", max_tokens=50):
                print(chunk.text, end="", flush=True)

    The arguments, and what methods take and raise, are those of `Client`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        tls: bool = False,
        root_certificates: bytes | str | Path | None = None,
        token: str | None = None,
        timeout: float | None = None,
        recovery_seconds: float = 30.0,
    ) -> None:
        connection = Connection(
            target=target or default_target(), tls=tls, root_certificates=root_certificates, token=token
        )
        self._transport = AsyncTransport(connection, timeout, recovery_seconds)
        self._models: dict[str, ModelInfo] = {}

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return self._transport.target

    def generate(
        self,
        prompt: SequenceLike | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        model: str = "",
        sampling_params: SamplingParams | None = None,
        session_id: str = "",
        expected_position: int | None = None,
        request_id: str = "",
        stream_options: StreamOptions | None = None,
        priority: int = 0,
        state: bytes = b"",
        return_state: bool = False,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerateStream:
        """Continues a prompt and gives the chunks as they come; as `Client.generate`."""
        make = functools.partial(
            calls.generate,
            prompt,
            messages=messages,
            model=model,
            sampling_params=calls.sampling(sampling_params, sampling),
            session_id=session_id,
            expected_position=expected_position,
            request_id=request_id,
            stream_options=stream_options,
            priority=priority,
            state=state,
            return_state=return_state,
        )
        return AsyncGenerateStream(self._transport, make, timeout=timeout)

    async def complete(
        self,
        prompt: SequenceLike | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        model: str = "",
        sampling_params: SamplingParams | None = None,
        state: bytes = b"",
        return_state: bool = False,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion:
        """Generates to the end and returns the whole."""
        gathering = Gathering()
        stream = self.generate(
            prompt,
            messages=messages,
            model=model,
            sampling_params=sampling_params,
            state=state,
            return_state=return_state,
            timeout=timeout,
            **sampling,
        )
        async with stream:
            async for chunk in stream:
                gathering.add(chunk)
        return gathering.only()

    async def generate_text(
        self,
        prompt: SequenceLike | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        model: str = "",
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Generates to the end and returns the text."""
        completion = await self.complete(
            prompt, messages=messages, model=model, sampling_params=sampling_params, timeout=timeout, **sampling
        )
        return completion.text

    async def score(
        self, sequences: Sequence[SequenceLike], *, model: str = "", timeout: float | None = None
    ) -> tuple[Score, ...]:
        """How likely a model finds each sequence, from its beginning; at most 1,024 of them."""
        return await self._transport.unary(calls.score(sequences, model=model), timeout)

    async def fill(
        self,
        sequences: Sequence[SequenceLike],
        positions: Sequence[Sequence[int]] | None = None,
        *,
        model: str = "",
        top: int | None = None,
        separately: bool = False,
        timeout: float | None = None,
    ) -> tuple[Filling, ...]:
        """Tells what may stand at the masked places of sequences; as `Client.fill`."""
        call = filling.fill(sequences, positions, model=model, top=top, separately=separately)
        return await self._transport.unary(call, timeout)

    async def classify(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = "",
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Classifies sequences; as `Client.classify`."""
        outcomes = self.classify_many(sequences, model=model, batch_size=batch_size, timeout=timeout)
        return [prediction async for prediction in outcomes]

    @overload
    def classify_many(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = ...,
        batch_size: int | None = ...,
        look_ahead: int = ...,
        timeout: float | None = ...,
        return_exceptions: Literal[False] = ...,
    ) -> AsyncIterator[Prediction]: ...
    @overload
    def classify_many(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = ...,
        batch_size: int | None = ...,
        look_ahead: int = ...,
        timeout: float | None = ...,
        return_exceptions: Literal[True],
    ) -> AsyncIterator[Outcome]: ...
    async def classify_many(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = "",
        batch_size: int | None = None,
        look_ahead: int = LOOK_AHEAD,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Outcome]:
        """Classifies any number of sequences, in order, while later ones are computed; as `Client.classify_many`."""
        check_collection(sequences)
        info = await self._classifier(model)
        classifier = AsyncClassifier(
            transport=self._transport,
            model=info.name,
            budget=budget(info, batch_size),
            look_ahead=look_ahead,
            timeout=timeout,
            return_exceptions=return_exceptions,
        )
        async with contextlib.aclosing(classifier.outcomes(sequences)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def open_session(
        self,
        model: str = "",
        *,
        routing_key: str = "",
        request_id: str = "",
        ttl: float | None = None,
        check_position: bool = True,
        timeout: float | None = None,
    ) -> AsyncSession:
        """Makes a session in the model's initial state; as `Client.open_session`."""
        call = calls.open_session(model=model, routing_key=routing_key, request_id=request_id, ttl=ttl)
        info = await self._transport.unary(call, timeout)
        cursor = Cursor(info.session_id, check_position=check_position, status=info.status)
        return AsyncSession(self._transport, cursor, model=info.model, owned=True)

    async def import_session(
        self,
        file: FileLike,
        model: str = "",
        *,
        routing_key: str = "",
        request_id: str = "",
        ttl: float | None = None,
        check_position: bool = True,
        timeout: float | None = None,
    ) -> AsyncSession:
        """Makes a session that goes on from an exported file; as `Client.import_session`."""
        call = state_calls.import_state(model=model, routing_key=routing_key, request_id=request_id, ttl=ttl)
        data = await asyncio.to_thread(contents, file)
        info = await self._transport.upload(call, state_calls.import_state_bodies(call, data), timeout)
        cursor = Cursor(info.session_id, check_position=check_position, status=info.status)
        return AsyncSession(self._transport, cursor, model=info.model, owned=True)

    def session(self, session_id: str, *, check_position: bool = True) -> AsyncSession:
        """Takes up a session by its id, without a call."""
        return AsyncSession(self._transport, Cursor(session_id, check_position=check_position))

    async def list_sessions(
        self, *, model: str = "", page_size: int = 0, timeout: float | None = None
    ) -> AsyncIterator[SessionInfo]:
        """The server's sessions, oldest first; further pages are fetched as needed."""
        token = ""
        while True:
            call = calls.list_sessions(model=model, page_size=page_size, page_token=token)
            page = await self._transport.unary(call, timeout)
            for session in page.sessions:
                yield session
            token = page.next_page_token
            if not token:
                return

    async def models(self, *, timeout: float | None = None) -> tuple[ModelInfo, ...]:
        """Every model of the server."""
        return await self._transport.unary(calls.list_models(), timeout)

    async def model(self, name: str, *, timeout: float | None = None) -> ModelInfo:
        """One model: architecture, form, bytes per session, limits."""
        return await self._transport.unary(calls.get_model(name), timeout)

    async def load_model(self, name: str, folder: str, *, timeout: float | None = None) -> ModelInfo:
        """Has the server load a model from a folder on its disk; as `Client.load_model`."""
        return await self._transport.unary(calls.load_model(name, folder), timeout)

    async def unload_model(self, name: str, *, force: bool = False, timeout: float | None = None) -> int:
        """Has the server free a model; as `Client.unload_model`."""
        return await self._transport.unary(calls.unload_model(name, force=force), timeout)

    async def load(self, *, timeout: float | None = None) -> ServerLoad:
        """How busy the server and each of its models are."""
        return await self._transport.unary(calls.get_loads(), timeout)

    async def drain(self, *, timeout: float | None = None) -> int:
        """Takes the server out of service; as `Client.drain`."""
        return await self._transport.unary(calls.drain(resume=False), timeout)

    async def resume(self, *, timeout: float | None = None) -> None:
        """Takes a drained server back into service."""
        await self._transport.unary(calls.drain(resume=True), timeout)

    async def health(self, service: str = "", *, timeout: float | None = None) -> ServingStatus:
        """grpc.health.v1: of the process, or of one service; as `Client.health`."""
        return await self._transport.unary(calls.check_health(service), timeout)

    async def wait_until_ready(self, timeout: float, *, service: str = "") -> None:
        """Waits until the server, or one service of it, serves; as `Client.wait_until_ready`."""
        deadline = time.monotonic() + timeout
        while not await self._serves(service):
            if time.monotonic() >= deadline:
                raise Unavailable(f"{service or 'the server'} at {self.target} is not ready after {timeout:g} seconds")
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Ends the connection and every call on it."""
        await self._transport.close()

    async def _serves(self, service: str) -> bool:
        try:
            return await self.health(service, timeout=2.0) is ServingStatus.SERVING
        except (Unavailable, TimeoutError):
            return False

    async def _classifier(self, name: str) -> ModelInfo:
        if name not in self._models:
            self._models[name] = await self.model(name) if name else choose_classifier(await self.models())
        return self._models[name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
