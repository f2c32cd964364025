"""A server that is killed and started again at the same address, with what it kept."""

import multiprocessing
import os
import random
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from ssp_server.cli import main
from tests.server.server_process import ServerProcess

_FORKS = multiprocessing.get_context("forkserver")  # of a process that has imported all there is: they start at once
_FORKS.set_forkserver_preload(["ssp_server.server"])


class ForkedProcess:
    """`ssp-server serve`, as `subprocess.Popen` has it."""

    def __init__(self, arguments: list[str]) -> None:
        reading, writing = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_serve, args=(arguments, writing), daemon=True)
        self._process.start()
        writing.close()
        self.stderr = os.fdopen(os.dup(reading.fileno()))
        reading.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"the server goes on after {timeout:g} seconds"
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def _serve(arguments: list[str], stderr: Connection) -> None:
    os.dup2(stderr.fileno(), 2)
    sys.argv = ["ssp-server", "serve", *arguments]
    main()


class RestartedServer:
    """Its address stays the same; `store` is a folder or the URL of a Redis."""

    def __init__(
        self, models: Path, store: str | Path | None = None, *arguments: str | Path, model: str = "writer"
    ) -> None:
        kept = () if store is None else ("--store", store)
        self.target = f"127.0.0.1:{_free_port()}"
        port = self.target.rpartition(":")[2]
        self._arguments = ("--models", models / model, *kept, "--port", port, *arguments)
        self.start()

    def start(self) -> None:
        """Returns when it serves."""
        self._server = ServerProcess(*self._arguments, launch=ForkedProcess)

    def kill(self) -> None:
        """It has no time to do anything more."""
        self._server.process.kill()
        self._server.wait()

    def stop(self) -> None:
        """It puts everything away."""
        self._server.terminate()
        assert self._server.wait() == 0

    def restart(self) -> None:
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _free_port() -> int:
    """One that no outgoing connection is given while the server is away."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
