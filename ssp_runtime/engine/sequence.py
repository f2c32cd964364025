"""A sequence that the engine computes on, and a call on it."""

import threading
import time
from collections import deque
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.text import TextStream
from ssp_runtime.tokenizers import Detokenizer

PENALTY_WINDOW = 1024


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What one step brought to one call, and the sequence's position then. The last has a finish reason, and with
    ERROR the error."""

    position: int
    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    error: Exception | None = None


class Sequence:
    """A state and what belongs to it between calls.

    The state has folded `folded` tokens. The newest token is `pending`: known, not folded yet, since folding it is what
    yields the scores of the next. So nothing but the state is needed to go on from any call.
    """

    def __init__(self, detokenizer: Detokenizer, *, kept: bool) -> None:
        self.kept = kept  # outlives its calls
        self.folded = 0
        self.pending: int | None = None
        self.recent: deque[tuple[int, bool]] = deque(maxlen=PENALTY_WINDOW)  # (id, whether it was generated)
        self.detokenizer = detokenizer
        self.spilled: Tensor | None = None
        self.version = 0
        self.committed_position = 0
        self.last_used = time.time()
        self.call: Call | None = None
        self.last_call: tuple[str, Call] | None = None  # and the request_id it came with
        self.broken = False  # its state is lost

    @property
    def position(self) -> int:
        return self.folded + (self.pending is not None)


class Call:
    """Tokens to fold into a sequence and, with `params`, what to generate from there.

    The engine's thread writes; one reader takes what was computed.
    """

    def __init__(self, sequence: Sequence, prompt: Ids[int], params: SamplingParams | None) -> None:
        self.sequence, self.params = sequence, params
        self.prompt = tuple(prompt)
        self.num_prompt_tokens = len(self.prompt)
        self.todo: list[int] = []
        self.text = TextStream(sequence.detokenizer, params.stop if params else (), params.min_tokens if params else 0)
        self.num_generated = 0
        self.cached_tokens = sequence.position
        self.finish_reason: FinishReason | None = None
        self.cancelled = threading.Event()
        self.submitted = self.last_read = time.monotonic()
        self.admitted: float | None = None
        self.decoding_since: float | None = None
        self.last_token_at: float | None = None
        self.history: list[Progress] = []  # all that was computed, for a retry
        self._outbox: deque[Progress] = deque()

    def put(self, progress: Progress) -> None:
        self.history.append(progress)
        self._outbox.append(progress)

    def take(self, max_tokens: int) -> list[Progress]:
        """What was computed since, up to that many tokens."""
        taken, tokens = [], 0
        while self._outbox and tokens < max_tokens:
            taken.append(self._outbox.popleft())
            tokens += len(taken[-1].token_ids)
        self.last_read = time.monotonic()
        return taken

    def put_back(self, taken: Ids[Progress]) -> None:
        """Undoes a `take` whose result could not be delivered."""
        self._outbox.extendleft(reversed(taken))

    def undelivered(self) -> list[Progress]:
        """Tokens that no reader took."""
        return [progress for progress in self._outbox if progress.token_ids]

    def seconds_since_submitted(self) -> float:
        return time.monotonic() - self.submitted

    @property
    def num_unread(self) -> int:
        return len(self._outbox)

    def cancel(self) -> None:
        """Ends the call within one step; the sequence stays at the last computed token."""
        self.cancelled.set()

    def take_in(self) -> None:
        """Makes the sequence's pending token and the prompt what is to be folded."""
        sequence = self.sequence
        self.todo = [*([] if sequence.pending is None else [sequence.pending]), *self.prompt]
        sequence.pending = None
        sequence.recent.extend((token, False) for token in self.prompt)

    def give_back(self) -> None:
        """Leaves in `prompt` what was not folded, for a retry. The next token to fold becomes the pending one, so that
        the sequence can go on from here."""
        if self.admitted is None:
            return
        todo, self.todo = self.todo, []
        sequence = self.sequence
        if todo and (sequence.folded or len(todo) > len(self.prompt)):
            sequence.pending, todo = todo[0], todo[1:]
        self.prompt = tuple(todo)
        for _ in todo[: len(sequence.recent)]:
            sequence.recent.pop()
