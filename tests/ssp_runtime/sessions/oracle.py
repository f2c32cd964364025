"""What sessions must be after any calls, from their tokens alone."""

import copy
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field, replace

from ssp_runtime.engine.sampling_params import SamplingParams
from tests.ssp_runtime.sessions.hash_chain import BOS, continued


@dataclass(kw_only=True)
class LastCall:
    """`tokens` is what it has brought so far, to whomever."""

    request_id: str
    prompt: list[int]
    params: SamplingParams
    tokens: list[int]
    num_generated: int


@dataclass(kw_only=True)
class Known:
    """A session's tokens, those that its next reader gets first, and its checkpoints' tokens."""

    tokens: list[int] = field(default_factory=list)
    undelivered: list[int] = field(default_factory=list)
    checkpoints: dict[str, list[int]] = field(default_factory=dict)
    last: LastCall | None = None

    def append(self, prompt: Ids[int]) -> None:
        self.last = None
        self.tokens += self._whole(prompt)

    def step(self, tokens: Ids[int]) -> None:
        self.append(tokens)
        self.undelivered = []

    def generate(self, prompt: Ids[int], params: SamplingParams, request_id: str = "", cut: int = 0) -> list[int]:
        """What its reader gets, if it reads all; with `cut` the call ends after so many tokens."""
        self.tokens += self._whole(prompt)
        made = continued(self.tokens, cut or params.max_tokens, params)
        brought, self.undelivered = [*self.undelivered, *made], []
        self.tokens += made
        self.last = LastCall(
            request_id=request_id, prompt=[*prompt], params=params, tokens=brought, num_generated=len(made)
        )
        return brought

    def retry(self) -> list[int]:
        """What a reader gets who asks for the last call again."""
        assert self.last is not None
        made = continued(self.tokens, self.last.params.max_tokens - self.last.num_generated, self.last.params)
        self.tokens += made
        self.undelivered = []
        self.last.tokens = [*self.last.tokens, *made]
        self.last.num_generated += len(made)
        return self.last.tokens

    def checkpoint(self, name: str) -> None:
        self.checkpoints[name] = [*self.tokens]

    def rewind(self, name: str) -> None:
        self.tokens, self.undelivered, self.last = [*self.checkpoints[name]], [], None

    def forked(self) -> "Known":
        return Known(tokens=[*self.tokens])

    def carried(self) -> "Known":
        """Elsewhere: all but the checkpoints."""
        return replace(self.copied(), checkpoints={})

    def copied(self) -> "Known":
        return copy.deepcopy(self)

    def _whole(self, prompt: Ids[int]) -> list[int]:
        begins = not self.tokens and list(prompt[:1]) != [BOS]
        return [BOS, *prompt] if begins else [*prompt]
