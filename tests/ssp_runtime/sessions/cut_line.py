"""A connection that breaks at the worst moment: after what was asked has arrived, before the answer."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class CutLine:
    """A line to a server on this machine; the next `cuts` answers are lost, each with its connection."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0
        self._run(self._accept)

    def _run(self, work: object, *arguments: socket.socket) -> None:
        assert callable(work)
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                self._sockets += [near, far]
                self._run(self._ask, near, far)
                self._run(self._answer, far, near)

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 16):
                far.sendall(data)
        _end(near, far)

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 16):
                if self.cuts:
                    self.cuts -= 1
                    break
                near.sendall(data)
        _end(near, far)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._listener, *self._sockets)
        for thread in self._threads:
            thread.join(30)
        for made in (self._listener, *self._sockets):
            made.close()


def _end(*sockets: socket.socket) -> None:
    for made in sockets:
        with contextlib.suppress(OSError):
            made.shutdown(socket.SHUT_RDWR)
