"""The client for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, Unpack, overload

from ssp_client import calls
from ssp_client.aio.classify import AsyncClassifier
from ssp_client.aio.session import AsyncSession
from ssp_client.aio.stream import AsyncGenerateStream
from ssp_client.aio.transport import AsyncTransport
from ssp_client.batching import Outcome, budget, check_collection, choose_classifier
from ssp_client.channel import Connection, default_target
from ssp_client.completion import Completion, Gathering
from ssp_client.cursor import Cursor
from ssp_client.errors import Unavailable
from ssp_client.types import (
    ModelInfo,
    Prediction,
    SamplingOptions,
    SamplingParams,
    Score,
    SequenceLike,
    ServingStatus,
    SessionInfo,
    StreamOptions,
)


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
    ) -> None:
        connection = Connection(
            target=target or default_target(), tls=tls, root_certificates=root_certificates, token=token
        )
        self._transport = AsyncTransport(connection, timeout)
        self._models: dict[str, ModelInfo] = {}

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return self._transport.target

    def generate(
        self,
        prompt: SequenceLike | None = None,
        *,
        model: str = "",
        sampling_params: SamplingParams | None = None,
        session_id: str = "",
        expected_position: int | None = None,
        request_id: str = "",
        stream_options: StreamOptions | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerateStream:
        """Continues a prompt and gives the chunks as they come; as `Client.generate`."""
        call = calls.generate(
            prompt,
            model=model,
            sampling_params=calls.sampling(sampling_params, sampling),
            session_id=session_id,
            expected_position=expected_position,
            request_id=request_id,
            stream_options=stream_options,
        )
        return AsyncGenerateStream(self._transport, call, timeout=timeout)

    async def complete(
        self,
        prompt: SequenceLike | None = None,
        *,
        model: str = "",
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion:
        """Generates to the end and returns the whole."""
        gathering = Gathering()
        stream = self.generate(prompt, model=model, sampling_params=sampling_params, timeout=timeout, **sampling)
        async with stream:
            async for chunk in stream:
                gathering.add(chunk)
        return gathering.only()

    async def generate_text(
        self,
        prompt: SequenceLike | None = None,
        *,
        model: str = "",
        sampling_params: SamplingParams | None = None,
        timeout: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Generates to the end and returns the text."""
        completion = await self.complete(
            prompt, model=model, sampling_params=sampling_params, timeout=timeout, **sampling
        )
        return completion.text

    async def score(
        self, sequences: Sequence[SequenceLike], *, model: str = "", timeout: float | None = None
    ) -> tuple[Score, ...]:
        """How likely a model finds each sequence, from its beginning; at most 1,024 of them."""
        return await self._transport.unary(calls.score(sequences, model=model), timeout)

    async def classify(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = "",
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Classifies sequences, in as many calls as the model's limits ask for; as `Client.classify`."""
        outcomes = self.iter_classify(sequences, model=model, batch_size=batch_size, timeout=timeout)
        return [prediction async for prediction in outcomes]

    @overload
    def iter_classify(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = ...,
        batch_size: int | None = ...,
        in_flight: int = ...,
        timeout: float | None = ...,
        return_exceptions: Literal[False] = ...,
    ) -> AsyncIterator[Prediction]: ...
    @overload
    def iter_classify(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = ...,
        batch_size: int | None = ...,
        in_flight: int = ...,
        timeout: float | None = ...,
        return_exceptions: Literal[True],
    ) -> AsyncIterator[Outcome]: ...
    async def iter_classify(
        self,
        sequences: Iterable[SequenceLike] | AsyncIterable[SequenceLike],
        *,
        model: str = "",
        batch_size: int | None = None,
        in_flight: int = 4,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Outcome]:
        """Classifies any number of sequences, in order, while later calls run; as `Client.iter_classify`."""
        check_collection(sequences)
        info = await self._classifier(model)
        classifier = AsyncClassifier(
            transport=self._transport,
            model=info.name,
            budget=budget(info, batch_size),
            in_flight=in_flight,
            timeout=timeout,
            return_exceptions=return_exceptions,
        )
        async for outcome in classifier.outcomes(sequences):
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
