"""The client for synchronous programs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, Unpack, overload

from ssp_client import calls, filling, state_calls
from ssp_client.batching import Outcome, budget, check_collection, choose_classifier
from ssp_client.channel import Connection, default_target
from ssp_client.classify import Classifier
from ssp_client.completion import Completion, Gathering
from ssp_client.cursor import Cursor
from ssp_client.errors import Unavailable
from ssp_client.files import FileLike, contents
from ssp_client.session import Session
from ssp_client.stream import GenerateStream
from ssp_client.transport import Transport
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


class Client:
    """A connection to one server, made with the first call. Safe for several threads.

        with Client() as client:
            for chunk in client.generate("Once upon a time", max_tokens=50):
                print(chunk.text, end="", flush=True)

    Args:
        target: HOST:PORT; by default `SSP_TARGET` of the environment, else 127.0.0.1:50051.
        tls: use TLS with the system's root certificates.
        root_certificates: use TLS with these: PEM, or a file of it.
        token: who asks; by default `SSP_TOKEN` of the environment. Sent over TLS or to this machine only.
        timeout: seconds that a call may take, a stream from beginning to end; by default without limit.
            Every method takes its own.
        recovery_seconds: how long a session waits for a server that went away, to have it do again what it lost, and
            to go on; 0 is not at all.

    Raises:
        ValueError: the target is no address, or the token would travel in the clear.
        SSPError: every method, when its call fails; see `ssp_client.errors`.
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
        self._transport = Transport(connection, timeout, recovery_seconds)
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
    ) -> GenerateStream:
        """Continues a prompt and gives the chunks as they come.

        Args:
            prompt: text, token ids, or vectors; may be None for a model with a beginning-of-text token.
            messages: a whole conversation in place of a prompt, `[{"role": "user", "content": "Hello"}]`, for the
                model's chat template; on a session only in its first call.
            model: may be empty if the server has one model that generates.
            sampling_params: how tokens are drawn; its fields may also be given as keywords (`max_tokens=50`).
            session_id, expected_position: continue a session; `Session` keeps track of both by itself.
            request_id: names the call; a retry on a session under the same name does not advance it twice.
            stream_options: how tokens are put together into chunks.
            priority: calls of a lower number get a slot first.
            state: go on from this state, the `state` of an earlier chunk or completion.
            return_state: have the last chunk carry the state, instead of keeping it in a session on the server.
            timeout: seconds for the whole stream.
        """
        call = calls.generate(
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
        return GenerateStream(self._transport, call, timeout=timeout)

    def complete(
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
        """Generates to the end and returns the whole; of `n` completions the first (see `collect_completions`)."""
        gathering = Gathering()
        with self.generate(
            prompt,
            messages=messages,
            model=model,
            sampling_params=sampling_params,
            state=state,
            return_state=return_state,
            timeout=timeout,
            **sampling,
        ) as stream:
            for chunk in stream:
                gathering.add(chunk)
        return gathering.only()

    def generate_text(
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
        return self.complete(
            prompt, messages=messages, model=model, sampling_params=sampling_params, timeout=timeout, **sampling
        ).text

    def score(
        self, sequences: Sequence[SequenceLike], *, model: str = "", timeout: float | None = None
    ) -> tuple[Score, ...]:
        """How likely a model finds each sequence, from its beginning; at most 1,024 of them."""
        return self._transport.unary(calls.score(sequences, model=model), timeout)

    def fill(
        self,
        sequences: Sequence[SequenceLike],
        positions: Sequence[Sequence[int]] | None = None,
        *,
        model: str = "",
        top: int | None = None,
        separately: bool = False,
        timeout: float | None = None,
    ) -> tuple[Filling, ...]:
        """Tells the `top` likeliest tokens at masked places (`ACGT[MASK]ACG`), and how likely what stands there is.

        `positions` of each sequence, counted in tokens from 0, are masked as well; `separately` one at a time, so that
        `Filling.total` is a pseudo-log-likelihood."""
        call = filling.fill(sequences, positions, model=model, top=top, separately=separately)
        return self._transport.unary(call, timeout)

    def classify(
        self,
        sequences: Iterable[SequenceLike],
        *,
        model: str = "",
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Classifies sequences; as `classify_many`, but gives the whole list.

        Raises:
            InvalidSequence: a sequence cannot be classified; `.index` says which.
        """
        return list(self.classify_many(sequences, model=model, batch_size=batch_size, timeout=timeout))

    @overload
    def classify_many(
        self,
        sequences: Iterable[SequenceLike],
        *,
        model: str = ...,
        batch_size: int | None = ...,
        look_ahead: int = ...,
        timeout: float | None = ...,
        return_exceptions: Literal[False] = ...,
    ) -> Iterator[Prediction]: ...
    @overload
    def classify_many(
        self,
        sequences: Iterable[SequenceLike],
        *,
        model: str = ...,
        batch_size: int | None = ...,
        look_ahead: int = ...,
        timeout: float | None = ...,
        return_exceptions: Literal[True],
    ) -> Iterator[Outcome]: ...
    def classify_many(
        self,
        sequences: Iterable[SequenceLike],
        *,
        model: str = "",
        batch_size: int | None = None,
        look_ahead: int = LOOK_AHEAD,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[Outcome]:
        """Classifies any number of sequences on one stream; gives predictions in order while later ones are computed.

        A connection that breaks is made again, and what was unanswered sent again.

        Args:
            sequences: text, token ids, or vectors (L, d_input); read as needed.
            model: may be empty if the server has one model that classifies.
            batch_size: sequences per message.
            look_ahead: sequences that are read ahead of the one whose prediction is next.
            timeout: seconds for the whole stream.
            return_exceptions: give an `InvalidSequence` in the place of each sequence that cannot be classified,
                instead of raising the first.
        """
        check_collection(sequences)
        info = self._classifier(model)
        classifier = Classifier(
            transport=self._transport,
            model=info.name,
            budget=budget(info, batch_size),
            look_ahead=look_ahead,
            timeout=timeout,
            return_exceptions=return_exceptions,
        )
        yield from classifier.outcomes(sequences)

    def open_session(
        self,
        model: str = "",
        *,
        routing_key: str = "",
        request_id: str = "",
        ttl: float | None = None,
        check_position: bool = True,
        timeout: float | None = None,
    ) -> Session:
        """Makes a session in the model's initial state.

        Args:
            model: may be empty if the server has one model that generates.
            routing_key: first part of the id, for routers: 1 to 64 letters, digits, '-' or '_'.
            request_id: names the call; a retry under the same name returns the session made first.
            ttl: seconds after which the server closes it if nobody uses it; None is never.
            check_position: have the server refuse calls once another client has advanced the session.
        """
        call = calls.open_session(model=model, routing_key=routing_key, request_id=request_id, ttl=ttl)
        info = self._transport.unary(call, timeout)
        cursor = Cursor(info.session_id, check_position=check_position, status=info.status)
        return Session(self._transport, cursor, model=info.model, owned=True)

    def import_session(
        self,
        file: FileLike,
        model: str = "",
        *,
        routing_key: str = "",
        request_id: str = "",
        ttl: float | None = None,
        check_position: bool = True,
        timeout: float | None = None,
    ) -> Session:
        """Makes a session that goes on from a file that `Session.export` wrote, on this server or another.

        Args:
            file: a path, or a file opened in binary mode.
            model: may be empty if one model of the server has the weights that the file names.
            routing_key, request_id, ttl, check_position: as in `open_session`.

        Raises:
            DataLoss: the file is damaged.
            ModelMismatch: no model of the server fits.
        """
        call = state_calls.import_state(model=model, routing_key=routing_key, request_id=request_id, ttl=ttl)
        info = self._transport.upload(call, state_calls.import_state_bodies(call, contents(file)), timeout)
        cursor = Cursor(info.session_id, check_position=check_position, status=info.status)
        return Session(self._transport, cursor, model=info.model, owned=True)

    def session(self, session_id: str, *, check_position: bool = True) -> Session:
        """Takes up a session by its id, without a call; `Session.info` tells where it stands."""
        return Session(self._transport, Cursor(session_id, check_position=check_position))

    def list_sessions(
        self, *, model: str = "", page_size: int = 0, timeout: float | None = None
    ) -> Iterator[SessionInfo]:
        """The server's sessions, oldest first, of one model or of all; further pages are fetched as needed."""
        token = ""
        while True:
            page = self._transport.unary(
                calls.list_sessions(model=model, page_size=page_size, page_token=token), timeout
            )
            yield from page.sessions
            token = page.next_page_token
            if not token:
                return

    def models(self, *, timeout: float | None = None) -> tuple[ModelInfo, ...]:
        """Every model of the server."""
        return self._transport.unary(calls.list_models(), timeout)

    def model(self, name: str, *, timeout: float | None = None) -> ModelInfo:
        """One model: architecture, form, bytes per session, limits."""
        return self._transport.unary(calls.get_model(name), timeout)

    def load_model(self, name: str, folder: str, *, timeout: float | None = None) -> ModelInfo:
        """Has the server load a model from a folder on its disk, below one that its --model-root allows."""
        return self._transport.unary(calls.load_model(name, folder), timeout)

    def unload_model(self, name: str, *, force: bool = False, timeout: float | None = None) -> int:
        """Has the server let a model's calls end and free its memory; returns how many sessions were closed.

        Raises:
            FailedPrecondition: it has open sessions; `force` closes them.
        """
        return self._transport.unary(calls.unload_model(name, force=force), timeout)

    def load(self, *, timeout: float | None = None) -> ServerLoad:
        """How busy the server and each of its models are."""
        return self._transport.unary(calls.get_loads(), timeout)

    def drain(self, *, timeout: float | None = None) -> int:
        """Takes the server out of service and waits until its calls have ended; returns how many could not be ended."""
        return self._transport.unary(calls.drain(resume=False), timeout)

    def resume(self, *, timeout: float | None = None) -> None:
        """Takes a drained server back into service."""
        self._transport.unary(calls.drain(resume=True), timeout)

    def health(self, service: str = "", *, timeout: float | None = None) -> ServingStatus:
        """grpc.health.v1: of the process, or of one service (`ssp.v1.Generation`).

        Raises:
            NotFound: the server has no such service.
        """
        return self._transport.unary(calls.check_health(service), timeout)

    def wait_until_ready(self, timeout: float, *, service: str = "") -> None:
        """Waits until the server, or one service of it, serves; for at most `timeout` seconds.

        Raises:
            Unavailable: it does not by then.
        """
        deadline = time.monotonic() + timeout
        while not self._serves(service):
            if time.monotonic() >= deadline:
                raise Unavailable(f"{service or 'the server'} at {self.target} is not ready after {timeout:g} seconds")
            time.sleep(0.1)

    def close(self) -> None:
        """Ends the connection and every call on it."""
        self._transport.close()

    def _serves(self, service: str) -> bool:
        try:
            return self.health(service, timeout=2.0) is ServingStatus.SERVING
        except (Unavailable, TimeoutError):
            return False

    def _classifier(self, name: str) -> ModelInfo:
        if name not in self._models:
            self._models[name] = self.model(name) if name else choose_classifier(self.models())
        return self._models[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
