"""A call on a sequence: what is to be folded in, and what comes of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Ids
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ssp_runtime.engine import scores
from ssp_runtime.engine.backtrack import Backtrack
from ssp_runtime.engine.chunks import AT_ONCE, Chunking
from ssp_runtime.engine.prefix_cache import Prefixes
from ssp_runtime.engine.progress import FinishReason, Progress, Receipt, Results
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.text import TextStream

Input = int | npt.NDArray[np.float32]  # a token, or a vector of numbers


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """`priority`: lower is sooner. `owner` is with whom the engine's time is shared fairly, and whose prefixes are
    reused. After `deadline` (monotonic seconds) nothing is computed. A reader may lag `max_ahead` tokens behind.

    `received` are tokens that an earlier run of this very call generated, on a server that has lost them: they are
    taken as they are. `receipt` is of the call before.
    """

    request_id: str = ""
    priority: int = 0
    owner: str = ""
    deadline: float | None = None
    max_ahead: int = 32
    chunking: Chunking = AT_ONCE
    received: tuple[int, ...] = ()
    receipt: Receipt | None = None


class Call(Results):
    """Tokens to fold into a sequence and, with `params`, what to generate from there.

    The engine's thread writes; one reader takes what was computed.
    """

    needs_outputs = False  # of every token that is folded in
    rows_at_most = 0  # inputs that are folded one a round, together with what others generate; more go in parallel
    largest_piece = 1 << 62

    def __init__(
        self,
        sequence: Sequence,
        prompt: Ids[Input],
        params: SamplingParams | None = None,
        options: CallOptions | None = None,
    ) -> None:
        super().__init__()
        self.sequence, self.params, self.options = sequence, params, options or CallOptions()
        self.prompt: Ids[Input] = tuple(prompt)
        self.num_prompt_tokens = self.num_left = len(self.prompt)
        self.text = TextStream(sequence.detokenizer, params.stop if params else (), params.min_tokens if params else 0)
        self.forced = deque(self.options.received)  # what is taken in place of draws
        self.backtrack = Backtrack() if params is not None and params.exclude_stop else None
        self.prefixes: Prefixes | None = None  # of a new sequence's tokens, for others to reuse its states
        self.kept_prefix = 0  # tokens, of the longest one kept
        self.max_ahead = self.enough = self.options.max_ahead
        self.end_ids: frozenset[int] = frozenset()
        self.fresh: list[int] = []  # tokens generated that nobody has looked at
        self.chunk = 1  # how many of them make one worth looking at: the first does
        self.look_at = 1  # when so many are generated, chunk or not
        self.num_generated = 0
        self.num_carried = 0  # tokens that the sequence's last call had computed
        self.cached_tokens = sequence.position
        self.submitted = self.last_read = time.monotonic()
        self.admitted: float | None = None
        self.decoding_since: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self._inputs: deque[Input] = deque()

    # The reader

    def take(self, max_tokens: int) -> list[Progress]:
        self.last_read = time.monotonic()
        return super().take(max_tokens)

    def seconds_since_submitted(self) -> float:
        return time.monotonic() - self.submitted

    # The engine

    def accept(self, max_ahead: int, eos_ids: Iterable[int]) -> None:
        """An engine takes it on, which lets no call run further ahead; these ids end a text."""
        self.max_ahead = min(max_ahead, self.options.max_ahead)
        self.enough = min(self.chunking.max_tokens, self.max_ahead)  # there it pauses
        if self.params is not None:
            self.end_ids = self.params.stop_token_ids.union(() if self.params.ignore_eos else eos_ids)

    @property
    def priority(self) -> int:
        return self.options.priority

    @property
    def owner(self) -> str:
        return self.options.owner

    @property
    def deadline(self) -> float | None:
        return self.options.deadline

    @property
    def chunking(self) -> Chunking:
        return self.options.chunking

    @property
    def held_back(self) -> int:
        """Inputs that stay pending: the last, if it is a token."""
        return int(not self._inputs or isinstance(self._inputs[-1], int))

    @property
    def num_todo(self) -> int:
        """Tokens to fold before anything can be generated, the last of them included."""
        return len(self._inputs)

    @property
    def num_to_fold(self) -> int:
        """Those of them that are not to stay pending."""
        return max(0, len(self._inputs) - self.held_back)

    @property
    def generates(self) -> bool:
        """Whether the next step brings a token."""
        return not self._inputs and self.params is not None

    @property
    def has_work(self) -> bool:
        """Whether it could go on now."""
        return True

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do and nothing to generate."""
        return self.params is None and not self._inputs

    @property
    def lags(self) -> bool:
        """Whether its reader is too far behind for more outputs."""
        return self.needs_outputs and self.num_unread >= self.max_ahead

    def generate(self, token: int) -> bool:
        """Takes in what the last step brought; whether somebody has to look at it now (see `decoding`). It runs for
        every token, when a step has driven all but the model from the processor's caches: what it touches counts."""
        sequence, fresh = self.sequence, self.fresh
        sequence.folded += 1
        sequence.pending = token
        self.num_generated += 1
        fresh.append(token)
        return len(fresh) >= self.chunk or token in self.end_ids or self.num_generated >= self.look_at

    @property
    def has_chunk(self) -> bool:
        """Whether what it has generated is enough to look at, or ends it."""
        assert self.params is not None
        ended = self.fresh[-1] in self.end_ids or self.num_generated >= self.params.max_tokens
        return ended or len(self.fresh) >= self.chunk

    @property
    def num_ahead(self) -> int:
        """Tokens that its reader has not taken."""
        return self.num_unread + len(self.fresh)

    def go_on(self) -> None:
        """As far as it may from where its reader stands. Tokens are looked at one by one where a stop text may come,
        the next depends on them, or one may have to be taken back."""
        if self.params is not None:
            one_by_one = self.params.stop or self.params.changes_logits or self.backtrack is not None
            self.chunk = 1 if one_by_one else self.enough
            self.look_at = min(self.params.max_tokens, self.num_generated + self.max_ahead - self.num_ahead)

    def time_token(self, now: float) -> float | None:
        """A token is generated now; the seconds since the one before."""
        since = None if self.last_token_at is None else now - self.last_token_at
        self.first_token_at = self.first_token_at or now
        self.last_token_at = now
        return since

    @property
    def next_input(self) -> Input:
        """What the next step folds."""
        if self._inputs:
            return self._inputs[0]
        assert self.sequence.pending is not None
        return self.sequence.pending

    def upcoming(self, count: int) -> list[Input]:
        return list(islice(self._inputs, count))

    def take_in(self) -> None:
        """Makes the sequence's pending token and the prompt what is to be folded."""
        pending = self.sequence.pending
        self._inputs.extend([*([] if pending is None else [pending]), *self.prompt])

    def skip(self, count: int) -> None:
        """The sequence's state holds the first tokens now."""
        for _ in range(count):
            self._inputs.popleft()
        if count:
            self.sequence.folded += count
            self.sequence.pending = None

    def heard(self, outputs_LV: Tensor) -> Progress | None:  # noqa: ARG002  # for calls that need them
        """The outputs of the next tokens to fold, and what they bring to the reader."""
        return None

    def begin_decoding(self) -> None:
        """All but the last token are folded; that one is pending."""
        (token,) = self._inputs
        assert isinstance(token, int)
        self.sequence.pending = token
        self.decoding_since = time.monotonic()
        self.prefixes = None
        self._inputs.clear()
        self._leave(())

    def give_back(self) -> None:
        """Leaves in `prompt` what was not folded, for a retry. The next token to fold becomes the pending one, so that
        the sequence can go on from here."""
        self.sequence.pending, rest = self._standing()
        self._inputs.clear()
        self._leave(rest)

    def _standing(self) -> tuple[int | None, Ids[Input]]:
        """What is pending, and what of the prompt is left, if the call ends now."""
        if self.admitted is None:
            return self.sequence.pending, self.prompt
        rest = list(self._inputs)
        if rest and self.sequence.position and isinstance(rest[0], int):
            return rest[0], rest[1:]
        return self.sequence.pending, rest

    def _leave(self, rest: Ids[Input]) -> None:
        """Only the `rest` of the prompt is still to do."""
        taken_in = self.prompt[: len(self.prompt) - len(rest)]
        tokens = [token for token in taken_in if isinstance(token, int)]
        self.sequence.recent.extend((token, False) for token in tokens)
        self.sequence.detokenizer.follow(tokens)
        self.prompt, self.num_left = tuple(rest), len(rest)

    # A retry

    def follow(self, last: Call) -> None:
        """What the sequence's last call computed and its client has not received comes first. The client may have
        received it already in an earlier run of this very call."""
        receipt = self.options.receipt
        if receipt is not None and receipt.request_id == last.options.request_id:
            left = last.beyond(receipt)
        else:
            left = last.untaken()
        if not (left.token_ids or left.text):
            return
        self.put(left._replace(position=self.sequence.position))
        self.num_carried = len(left.token_ids)
        self.forced = deque(self.options.received[len(left.token_ids) :])

    def cut(self, sequence: Sequence) -> Call:
        """This call as it would be if it ended now, on a copy of its sequence, which is made to stand there too."""
        call = Call(sequence, self.prompt, options=self.options)
        call.num_prompt_tokens, call.num_generated = self.num_prompt_tokens, self.num_generated
        call.cached_tokens = self.cached_tokens
        call.text.resume(self.text.held, self.num_generated)
        call.copy_results(self)
        if self.finish_reason is None:
            sequence.pending, rest = self._standing()
            call._leave(rest)
            call.put(Progress(position=sequence.position, text=self.text.held, finish_reason=FinishReason.ABORT))
        return call

    def repeated(self, prompt: Ids[Input], params: SamplingParams | None, options: CallOptions) -> Call:
        """The same call again: it gives what this one computed, and if it was cut short goes on to what it had left
        to do."""
        cut = self.finish_reason is FinishReason.ABORT
        left = prompt[len(prompt) - self.num_left :] if cut else ()
        before = self.everything()._replace(position=self.sequence.position)
        received = options.received[len(before.token_ids) :]
        call = Call(self.sequence, left, params, replace(options, received=received))
        call.num_prompt_tokens, call.cached_tokens = self.num_prompt_tokens, self.cached_tokens
        call.num_generated, call.num_carried = self.num_generated, self.num_carried
        call.text.resume(self.text.held, self.num_generated)
        if not cut:
            call.put(before._replace(finish_reason=self.finish_reason))
        elif before.token_ids or before.text:
            call.put(before)
        return call


class ScoringCall(Call):
    """`scores` gets the logarithm of each token's probability after those before it, if there are any."""

    needs_outputs = True
    largest_piece = scores.PIECE

    def __init__(self, sequence: Sequence, prompt: Ids[Input], options: CallOptions | None = None) -> None:
        super().__init__(sequence, prompt, options=options)
        self.scores: list[float] = []

    def heard(self, outputs_LV: Tensor) -> None:
        following = self.upcoming(len(outputs_LV) + 1)[1:]
        self.scores += scores.log_probabilities(outputs_LV, following)  # type: ignore[arg-type]  # all are tokens
