"""`ssp-server serve` as a process, and what tests ask of it."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 30.0  # seconds; every wait has a bound
START_PATIENCE = 120.0  # importing torch takes long on a busy machine
COMMAND = (str(Path(sys.executable).with_name("ssp-server")), "serve")


def eventually(condition: Callable[[], bool], within: float = PATIENCE) -> float:
    """Waits until the condition holds; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within, f"not so within {within:g} seconds"
        time.sleep(0.01)
    return time.monotonic() - started


class Process(Protocol):
    """What is needed of `subprocess.Popen`."""

    @property
    def stderr(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...
    def kill(self) -> None: ...
    def send_signal(self, number: int, /) -> None: ...


def launched(arguments: list[str]) -> subprocess.Popen[str]:
    """A process of its own."""
    command = [*COMMAND, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class ServerProcess:
    """A server on free ports of 127.0.0.1. Its log is read as it comes."""

    def __init__(self, *arguments: str | Path, launch: Callable[[list[str]], Process] = launched) -> None:
        options = ("--port", "0", "--metrics-port", "0", "--log-format", "json")
        self.process = launch([*options, *map(str, arguments)])
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            serving = self.logged("serving")
        except BaseException:
            self.process.kill()
            self.wait()
            raise
        self.target, self.metrics_port = str(serving["address"]), int(serving["metrics_port"])

    def logged(self, event: str) -> dict[str, Any]:
        """Reads on in the log up to an event of that name."""
        passed = []
        while (line := self._lines.get(timeout=START_PATIENCE)) is not None:
            passed.append(line)
            if line.startswith("{") and json.loads(line)["event"] == event:
                return dict(json.loads(line))
        raise AssertionError(f"the server ended without {event!r}:\n{''.join(passed)}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code

    def metrics(self) -> dict[str, float]:
        """Every sample of the metrics port: by itself as `name{values}`, in the order of its labels' names, and summed
        over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = [value for name, value in sorted(sample.labels.items()) if name not in ("model", "le")]
                for name in {sample.name, f"{sample.name}{{{','.join(labels)}}}"}:
                    samples[name] = samples.get(name, 0.0) + sample.value
        return samples

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.terminate()
            code = self.wait()
            assert error or code == 0, f"the server ended with {code}"
