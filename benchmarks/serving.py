"""A server of its own for a benchmark."""

import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread


@dataclass(frozen=True, kw_only=True)
class Server:
    pid: int
    target: str


@contextmanager
def serving(model: Path, *options: object) -> Iterator[Server]:
    """A server of one model, on a free port."""
    command = [str(Path(sys.executable).with_name("ssp-server")), "serve", "--models", f"measured={model}"]
    common = ["--port", "0", "--metrics-port", "-1", "--log-format", "json"]
    with subprocess.Popen([*command, *common, *map(str, options)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            events = (json.loads(line) for line in process.stderr if line.startswith("{"))
            address = next(event["address"] for event in events if event["event"] == "serving")
            rest = Thread(target=lambda: deque(events, maxlen=0), daemon=True)  # a full pipe would stop the server
            rest.start()
            yield Server(pid=process.pid, target=address)
            process.terminate()
            rest.join()
        finally:
            process.kill()
