"""A stream of sequences to a server and of outcomes back, taken up again when it breaks."""

from __future__ import annotations

import collections
import contextlib
import time
from queue import SimpleQueue

import grpc

from ssp_client import calls
from ssp_client.batching import Batch, Outcome
from ssp_client.delivery import Pauses
from ssp_client.errors import Internal, SSPError
from ssp_client.transport import Transport
from ssp_client.window import Window


class Exchange:
    """One ClassifyMany call at a time; what `window` has unanswered is sent again after a lost connection."""

    def __init__(self, transport: Transport, window: Window, *, model: str, timeout: float | None) -> None:
        self._transport, self._window, self._timeout = transport, window, timeout
        self._call, self._model = calls.classify_many(), model
        self._pauses, self._is_sent = Pauses(), False
        self._start()

    def send(self, batch: Batch) -> None:
        """It does not wait."""
        self._outgoing.put(calls.classify_many_body(batch, model=self._model))

    def send_no_more(self) -> None:
        """That was all."""
        self._is_sent = True
        self._outgoing.put(None)

    def receive(self) -> dict[int, Outcome]:
        """Waits for the outcomes of a batch, by number."""
        while True:
            try:
                message = next(self._messages)
            except grpc.RpcError as error:
                self._recover(self._transport.exception(error), error)
            except StopIteration:
                raise Internal("the server ended the stream before it had answered all") from None
            else:
                self._pauses.reset()
                return self._call.parse(message)

    def end(self) -> None:
        """Waits until the server, which has answered all, closes the call."""
        with contextlib.suppress(grpc.RpcError):
            collections.deque(self._messages, maxlen=0)

    def close(self) -> None:
        """Cancels the call unless it has ended."""
        self._outgoing.put(None)
        self._messages.cancel()

    def _start(self) -> None:
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._messages = self._transport.exchange(self._call, iter(self._outgoing.get, None), self._timeout)
        for batch in self._window.unanswered:
            self.send(batch)
        if self._is_sent:
            self._outgoing.put(None)

    def _recover(self, failure: SSPError, error: grpc.RpcError) -> None:
        pause = self._pauses.before_retry(failure)
        if pause is None:
            raise failure from error
        self._outgoing.put(None)
        time.sleep(pause)
        self._start()
