"""Renders one chat template, in a process of its own that can be ended and has no more memory than it is given.

It is run as a file and imports nothing of this package. Messages are JSON after their length in four bytes: first the
template and its bounds, then variables of renderings, each answered with their texts or with what went wrong.
"""

import datetime
import json
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_REASON = 300  # characters


class Refused(Exception):
    """The template does not take these messages."""


class Failed(Exception):
    """The template cannot be rendered."""


class GenerationExtension(Extension):
    """{% generation %} marks what a model writes, for those who train it."""

    tags = {"generation"}  # noqa: RUF012  # as the class above declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """What published templates expect."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationExtension, LoopControlExtension]
    )
    del made.globals["lipsum"]
    made.globals |= {"raise_exception": refuse, "strftime_now": strftime_now}
    made.filters["tojson"] = tojson
    return made


def refuse(reason: object) -> None:
    raise Refused(str(reason))


def strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without the escapes that the filter of this name has for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Worker:
    def __init__(self, setup: dict[str, Any]) -> None:
        self._source, self._max_characters = setup["source"], setup["max_characters"]
        self._environment = environment()
        self._template: Any = None

    def answer(self, variables: list[dict[str, Any]]) -> dict[str, Any]:
        """A lack of memory is raised: then the process ends."""
        try:
            if self._template is None:
                self._template = self._environment.from_string(self._source)
            return {"texts": [self._render(each) for each in variables]}
        except Refused as error:
            return {"refused": str(error)[:MAX_REASON]}
        except MemoryError:
            raise
        except (Failed, TemplateError) as error:
            return {"failed": str(error)[:MAX_REASON]}
        except Exception as error:  # whatever the template did
            return {"failed": f"{type(error).__name__}: {error}"[:MAX_REASON]}

    def _render(self, variables: dict[str, Any]) -> str:
        pieces, total = [], 0
        for piece in self._template.generate(variables):
            pieces.append(piece)
            total += len(piece)
            if total > self._max_characters:
                raise Failed(f"it writes more than {self._max_characters} characters")
        text = "".join(pieces)
        text.encode()  # half of a surrogate pair is no text
        return text


def confine(memory_bytes: int) -> None:
    """From here on no file is opened or written, and no process begun."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def read(file: BinaryIO) -> Any:
    """None at the end."""
    head = file.read(4)
    return json.loads(file.read(int.from_bytes(head, "big"))) if head else None


def write(file: BinaryIO, message: object) -> None:
    data = json.dumps(message, ensure_ascii=False).encode(errors="replace")
    file.write(len(data).to_bytes(4, "big") + data)
    file.flush()


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    setup = read(source)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides when it ends
    # What is imported only when it is needed is needed once, while files can still be opened.
    warm = Worker({"source": "{{ {}|pprint }}{{ strftime_now('%c') }}{{ 1 / 0 }}", "max_characters": 1000})
    warm.answer([{}])
    confine(setup["memory_bytes"])
    worker = Worker(setup)
    write(sink, "ready")
    while (variables := read(source)) is not None:
        signal.alarm(setup["seconds"] + 1)  # should nobody be left to end this process
        write(sink, worker.answer(variables))
        signal.alarm(0)


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        os._exit(1)
