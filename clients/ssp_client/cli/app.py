"""Finds the command that the arguments name, runs it, and says what went wrong in one line."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Protocol, TypeAlias, cast

import tyro

from ssp_client.cli import admin, classify, fill, generate, health, models, score, sessions, step, transfer
from ssp_client.cli.bench import classify as bench_classify
from ssp_client.cli.bench import generate as bench_generate
from ssp_client.cli.bench import position as bench_position
from ssp_client.cli.bench import sessions as bench_sessions
from ssp_client.errors import SSPError


class Command(Protocol):
    """A command: a frozen dataclass whose fields are its flags and whose docstring is its help."""

    def run(self) -> int: ...


Commands: TypeAlias = Mapping[str, "type[Command] | Commands"]

COMMANDS: Commands = {
    "generate": generate.Generate,
    "classify": classify.Classify,
    "fill": fill.Fill,
    "score": score.Score,
    "step": step.Step,
    "models": {"list": models.List, "load": models.Load, "unload": models.Unload},
    "sessions": {
        "open": sessions.Open,
        "append": sessions.Append,
        "fork": sessions.Fork,
        "checkpoint": sessions.Checkpoint,
        "rewind": sessions.Rewind,
        "commit": sessions.Commit,
        "peek": sessions.Peek,
        "export": transfer.Export,
        "import": transfer.Import,
        "get": sessions.Get,
        "list": sessions.List,
        "close": sessions.Close,
    },
    "admin": {"loads": admin.Loads, "drain": admin.Drain},
    "health": health.Health,
    "bench": {
        "generate": bench_generate.Generate,
        "classify": bench_classify.Classify,
        "position": bench_position.Position,
        "sessions": bench_sessions.Sessions,
    },
}
GROUPS = {
    "models": "See the server's models, load and unload them; `ssp models NAME` means `ssp models list NAME`.",
    "admin": "Look after a server: how busy it is, out of service and back.",
    "sessions": "Make, feed, look at and end sessions: states on the server that outlive calls.",
    "bench": "Measure a running server; `ssp bench --num-prompts 50` means `ssp bench generate --num-prompts 50`.",
}
# What a group means where no command of it is named.
DEFAULTS = {"models": "list", "bench": "generate"}
OVERVIEW = """Talk to an ssp server: generate text, classify sequences, keep sessions, measure.

examples:
  ssp generate "Once upon a time" --max-tokens 50
  ssp classify reads.fasta.gz --output csv --out predictions.csv
  ssp models
  ssp bench --num-prompts 100 --request-rate 20

The server is 127.0.0.1:50051 unless --target or SSP_TARGET says otherwise."""

_CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)


def run(argv: Sequence[str]) -> int:
    """Parses and runs one command line.

    Raises:
        SystemExit: after help (0) or wrong usage (2).
    """
    try:
        return parse(argv).run()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (SSPError, ValueError, TypeError, OSError) as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 1


def parse(argv: Sequence[str]) -> Command:
    """The command with its flags."""
    path, rest = [], _with_default(argv)
    found: type[Command] | Commands = COMMANDS
    while isinstance(found, Mapping) and rest and rest[0] in found:
        path.append(rest[0])
        found, rest = found[rest[0]], rest[1:]
    prog = " ".join(("ssp", *path))
    if isinstance(found, Mapping):
        description = GROUPS[path[-1]] if path else OVERVIEW
        chosen: Any = tyro.cli(_menu(found), prog=prog, description=description, args=rest, config=_CONFIG)
    else:
        chosen = tyro.cli(found, prog=prog, description=_help(found), args=rest, config=_CONFIG)
    return cast(Command, chosen)


def _with_default(argv: Sequence[str]) -> list[str]:
    group, *rest = argv or ("",)
    commands = COMMANDS.get(group)
    if group in DEFAULTS and isinstance(commands, Mapping) and (not rest or rest[0] not in (*commands, "-h", "--help")):
        return [group, DEFAULTS[group], *rest]
    return list(argv)


def _menu(commands: Commands) -> Any:
    entries = [Annotated[_shown(found), _entry(name, found)] for name, found in commands.items()]
    return reduce(or_, entries)


def _shown(found: type[Command] | Commands) -> Any:
    return next(iter(found.values())) if isinstance(found, Mapping) else found


def _entry(name: str, found: type[Command] | Commands) -> Any:
    line = GROUPS[name] if isinstance(found, Mapping) else _help(found).splitlines()[0]
    return tyro.conf.subcommand(name, description=line)


def _help(command: type[Command]) -> str:
    return inspect.getdoc(command) or ""


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, SSPError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
