"""A sequence that the engine computes on, and a call on it."""

import copy
import threading
import time
from collections import deque
from collections.abc import Sequence as Ids
from dataclasses import dataclass, replace
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
        """Tokens taken in or generated. While a prompt is folded, what was pending is among the tokens to fold."""
        return max(self.folded + (self.pending is not None), self.committed_position)

    def become(self, other: "Sequence") -> None:
        """Stands from now on where the other, idle one does; `Engine.copy_state` brings the state."""
        self.folded, self.pending, self.broken = other.folded, other.pending, other.broken
        self.recent, self.detokenizer = other.recent.copy(), copy.deepcopy(other.detokenizer)
        self.committed_position = other.committed_position
        self.last_call = None

    @property
    def at_work(self) -> bool:
        """Whether a call on it has begun and not ended."""
        call = self.call
        return call is not None and call.admitted is not None


class Call:
    """Tokens to fold into a sequence and, with `params`, what to generate from there.

    If they are `scored`, `scores` gets the logarithm of each one's probability after those before it, if there are any.

    The engine's thread writes; one reader takes what was computed.
    """

    def __init__(
        self, sequence: Sequence, prompt: Ids[int], params: SamplingParams | None, *, scored: bool = False
    ) -> None:
        self.sequence, self.params = sequence, params
        self.scores: list[float] | None = [] if scored else None
        self.prompt = tuple(prompt)
        self.num_prompt_tokens = len(self.prompt)
        self.todo: list[int] = []
        self.text = TextStream(sequence.detokenizer, params.stop if params else (), params.min_tokens if params else 0)
        self.num_generated = 0
        self.cached_tokens = sequence.position
        self.cancelled = threading.Event()
        self.submitted = self.last_read = time.monotonic()
        self.admitted: float | None = None
        self.decoding_since: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.history: list[Progress] = []  # all that was computed, for a retry
        self._num_taken = 0

    @property
    def finish_reason(self) -> FinishReason | None:
        return self.history[-1].finish_reason if self.history else None

    def put(self, progress: Progress) -> None:
        self.history.append(progress)

    def take(self, max_tokens: int) -> list[Progress]:
        """What was computed since, up to that many tokens."""
        taken, tokens = [], 0
        while self.num_unread and tokens < max_tokens:
            taken.append(self.history[self._num_taken])
            self._num_taken += 1
            tokens += len(taken[-1].token_ids)
        self.last_read = time.monotonic()
        return taken

    def put_back(self, taken: Ids[Progress]) -> None:
        """Undoes a `take` whose result could not be delivered."""
        self._num_taken -= len(taken)

    def undelivered(self) -> list[Progress]:
        """Tokens and text that no reader took."""
        return [progress for progress in self.history[self._num_taken :] if progress.token_ids or progress.text]

    def repeated(self) -> "Call":
        """A call that gives again what this one computed, and if it was cut short goes on to what it had left to do."""
        cut, params = self.finish_reason is FinishReason.ABORT, self.params
        if cut and params is not None:
            done = self.num_generated
            params = replace(params, max_tokens=params.max_tokens - done, min_tokens=max(0, params.min_tokens - done))
        call = Call(self.sequence, self.prompt if cut else (), params)
        call.text, call.cached_tokens = self.text, self.cached_tokens
        call.num_prompt_tokens = self.num_prompt_tokens
        call.history = [progress for progress in self.history if not cut or progress.finish_reason is None]
        return call

    def seconds_since_submitted(self) -> float:
        return time.monotonic() - self.submitted

    @property
    def num_unread(self) -> int:
        return len(self.history) - self._num_taken

    def cancel(self) -> None:
        """Ends the call within one step; the sequence stays at the last computed token."""
        self.cancelled.set()

    def take_in(self) -> None:
        """Makes the sequence's pending token and the prompt what is to be folded."""
        sequence = self.sequence
        self.todo = [*([] if sequence.pending is None else [sequence.pending]), *self.prompt]
        sequence.pending = None

    def begin_decoding(self) -> None:
        """All but the last token are folded; that one is pending."""
        (self.sequence.pending,) = self.todo
        self.decoding_since = time.monotonic()
        self._leave(())

    def give_back(self) -> None:
        """Leaves in `prompt` what was not folded, for a retry. The next token to fold becomes the pending one, so that
        the sequence can go on from here."""
        if self.admitted is None:
            return
        todo, sequence = self.todo, self.sequence
        if todo and (sequence.folded or len(todo) > len(self.prompt)):
            sequence.pending, todo = todo[0], todo[1:]
        self._leave(todo)

    def _leave(self, rest: Ids[int]) -> None:
        """Only the `rest` of the prompt is still to do."""
        taken_in = self.prompt[: len(self.prompt) - len(rest)]
        self.sequence.recent.extend((token, False) for token in taken_in)
        self.prompt, self.todo = tuple(rest), []
