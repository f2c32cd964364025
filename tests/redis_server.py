"""A real Redis for tests: `RedisServer` is one on a free port, or the test is skipped."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

_BESIDE_PYTHON = Path(sys.executable).with_name("redis-server")  # where the extra `dev` brings one
EXECUTABLE = shutil.which("redis-server") or shutil.which(_BESIDE_PYTHON)


class RedisServer:
    """It keeps an append-only file in `folder`: `kill` and another `start` lose nothing that was answered."""

    def __init__(self, folder: Path, *options: str) -> None:
        if EXECUTABLE is None:
            pytest.skip("no redis-server on this machine; install one, for example with apt-get")
        self.port = _free_port()
        durable = ("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder))
        address = ("--bind", "127.0.0.1", "--port", str(self.port))
        self._command = [EXECUTABLE, *address, *durable, *options]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, retry=Retry(ConstantBackoff(0.05), 200))

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with self.client() as client:
            client.ping()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing until `thaw`."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
