"""`ssp generate`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, UseAppendAction

from ssp_client.cli.connection import ModelName, OptionalFloat, OptionalInt, OptionalPath, Server
from ssp_client.cli.output import note
from ssp_client.client import Client
from ssp_client.files import whole_file
from ssp_client.session import Session
from ssp_client.stream import GenerateStream
from ssp_client.types import ChatMessage, GenerateChunk, SamplingParams

_SAMPLING = {field.name for field in fields(SamplingParams)}


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Continue a prompt; the text is printed as it comes.

    examples:
      ssp generate "Once upon a time" --max-tokens 50
      cat story.txt | ssp generate - --temperature 0
      ssp generate "Dear diary," --open-session         (prints the session's id)
      ssp generate " and then" --session ID             (goes on where it stood)
      ssp generate --chat "Who are you?"                (by the model's chat template)
      ssp generate " and so" --state chat.state --save-state chat.state    (the same, kept here)

    stdout holds the text only, or with --json one object per chunk; a summary goes to stderr.
    """

    prompt: Annotated[Positional[str], tyro.conf.arg(metavar="[PROMPT]", help_behavior_hint="")] = ""
    """The text to continue; - reads it from stdin."""
    chat: bool = False
    """Take the prompt for a user's message, of which the model's chat template makes the text to continue."""
    model: ModelName = ""
    """The model; may be left out if the server has one that generates."""
    max_tokens: OptionalInt = None
    """Tokens to generate at most."""
    min_tokens: OptionalInt = None
    """Do not stop before this many tokens."""
    temperature: OptionalFloat = None
    """0 always takes the likeliest token."""
    top_k: OptionalInt = None
    """Draw from the k likeliest tokens; 0 is all."""
    top_p: OptionalFloat = None
    """Draw from the fewest tokens with this probability together."""
    min_p: OptionalFloat = None
    """Drop tokens less likely than this fraction of the likeliest."""
    repetition_penalty: OptionalFloat = None
    """Above 1: make tokens seen before less likely."""
    presence_penalty: OptionalFloat = None
    """Subtracted from the logit of tokens generated before."""
    frequency_penalty: OptionalFloat = None
    """Subtracted once for every time a token was generated before."""
    seed: OptionalInt = None
    """The same seed draws the same tokens."""
    stop: UseAppendAction[tuple[str, ...]] = ()
    """A text that ends the generation."""
    ignore_eos: bool = False
    """Go on past the end-of-text tokens."""
    exclude_stop: bool = False
    """Leave the session as it was before what ended the text; the next call must then bring input."""
    priority: int = 0
    """A call of a lower number gets a slot first."""
    session: Annotated[str, tyro.conf.arg(metavar="ID", help_behavior_hint="")] = ""
    """Continue this session."""
    open_session: bool = False
    """Open a session, continue it, and leave it open."""
    state: OptionalPath = None
    """Go on from the state in this file."""
    save_state: OptionalPath = None
    """Write the state after the last token to this file, which appears whole or not at all."""
    json: bool = False
    """Print one JSON object per chunk."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints the stream; 130 if the user interrupts it."""
        if self.session and self.open_session:
            raise ValueError("give --session or --open-session, not both")
        if (self.session or self.open_session) and (self.state or self.save_state):
            raise ValueError("a session keeps its state on the server; give --state and --save-state without one")
        prompt = sys.stdin.read() if self.prompt == "-" else self.prompt
        with self.server.client() as client:
            session = self._session(client)
            with ExitStack() as stack:
                watch = Watch()
                try:
                    self._print(stack.enter_context(self._start(client, session, prompt)), watch)
                except KeyboardInterrupt:
                    note("\ninterrupted")
                    return 130
                finally:
                    stack.close()
            note(watch.summary(session))
        if self.save_state:
            _save(watch.state, self.save_state)
        return 0

    def _session(self, client: Client) -> Session | None:
        if self.open_session:
            session = client.open_session(self.model)
            note(f"session {session.id}")
            return session
        return client.session(self.session) if self.session else None

    def _start(self, client: Client, session: Session | None, prompt: str) -> GenerateStream:
        params = self._sampling_params()
        messages: list[ChatMessage] | None = [{"role": "user", "content": prompt}] if self.chat else None
        text = None if self.chat else prompt or None
        if session:
            return session.generate(text, messages=messages, sampling_params=params, priority=self.priority)
        return client.generate(
            text,
            messages=messages,
            model=self.model,
            sampling_params=params,
            priority=self.priority,
            state=self.state.read_bytes() if self.state else b"",
            return_state=self.save_state is not None,
        )

    def _sampling_params(self) -> SamplingParams:
        given = {name: value for name, value in vars(self).items() if name in _SAMPLING}
        flags = {"ignore_eos": self.ignore_eos or None, "exclude_stop": self.exclude_stop or None}
        return SamplingParams(**given | flags)

    def _print(self, stream: GenerateStream, watch: Watch) -> None:
        for chunk in stream:
            watch.see(chunk)
            print(_json(chunk) if self.json else chunk.text, end="", flush=True)
            if self.json:
                print(flush=True)
        if not self.json:
            print(flush=True)


def _json(chunk: GenerateChunk) -> str:
    """All but the state, which is no text."""
    facts = asdict(chunk)
    del facts["state"]
    return json.dumps(facts, ensure_ascii=False)


def _save(state: bytes | None, path: Path) -> None:
    if state is None:
        raise ValueError(f"the call was cut before its prompt was read; {path} stays as it was")
    with whole_file(path) as file:
        file.write(state)


class Watch:
    """Times one stream, and keeps what its end brings."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._first: float | None = None
        self._tokens = 0
        self._finish_reason = "cut"
        self.state: bytes | None = None

    def see(self, chunk: GenerateChunk) -> None:
        """A chunk came just now."""
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self._tokens += len(chunk.token_ids)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self.state = chunk.state

    def summary(self, session: Session | None) -> str:
        """Tokens, time to the first of them, tokens per second after it, and the session's position."""
        parts = [f"{self._tokens} tokens ({self._finish_reason})"]
        if self._first:
            parts.append(f"TTFT {1000 * (self._first - self._start):.1f} ms")
            if self._tokens > 1 and self._last > self._first:
                parts.append(f"{(self._tokens - 1) / (self._last - self._first):.1f} tokens/s")
        if session:
            parts.append(f"session at position {session.position}")
        return ", ".join(parts)
