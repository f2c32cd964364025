"""A sequence that the engine computes on."""

from __future__ import annotations

import copy
import time
from collections import deque
from typing import TYPE_CHECKING

from torch import Tensor

from ssp_runtime.tokenizers import Detokenizer

if TYPE_CHECKING:
    from ssp_runtime.engine.call import Call

PENALTY_WINDOW = 1024


class Sequence:
    """A state and what belongs to it between calls.

    The state has folded `folded` tokens. The newest token may be `pending`: known, not folded yet, since folding it is
    what yields the scores of the next. So nothing but the state is needed to go on from any call.
    """

    def __init__(self, detokenizer: Detokenizer, *, kept: bool) -> None:
        self.kept = kept  # outlives its calls
        self.folded = 0
        self.pending: int | None = None
        self.recent: deque[tuple[int, bool]] = deque(maxlen=PENALTY_WINDOW)  # (id, whether it was generated)
        self.detokenizer = detokenizer
        self.spilled: Tensor | None = None  # its row, in host memory; nothing writes to it
        self.version = 0
        self.settled = 0  # where the last call that ended left it
        self.last_used = time.time()
        self.call: Call | None = None
        self.last_call: Call | None = None
        self.broken = False  # its state is lost

    @property
    def position(self) -> int:
        """Tokens taken in or generated."""
        return self.folded + (self.pending is not None)

    @property
    def is_busy(self) -> bool:
        """Whether the last call on it goes on."""
        return self.last_call is not None and self.last_call.finish_reason is None

    def end_call(self, *, broken: bool) -> None:
        """Nothing is computed on it any more."""
        self.call, self.broken = None, broken
        self.last_used = time.time()
        self.settled = self.position
        self.version += 1  # even if it stands where it did: it has another last call

    def settle(self) -> None:
        """Counts what has changed since as a new version."""
        if self.position != self.settled:
            self.settled, self.version = self.position, self.version + 1

    def become(self, other: Sequence) -> None:
        """Stands from now on where the other, idle one does, but for the state."""
        self.folded, self.pending, self.broken = other.folded, other.pending, other.broken
        self.recent, self.detokenizer = other.recent.copy(), copy.deepcopy(other.detokenizer)
        self.settled = other.settled
        self.last_call = None

    def cut(self) -> Sequence:
        """A copy without the state, as this one would stand if its call ended now."""
        made = Sequence(self.detokenizer, kept=True)
        made.become(self)
        made.version, made.last_used = self.version, time.time() if self.is_busy else self.last_used
        if self.last_call is not None:
            made.last_call = self.last_call.cut(made)
        made.settled = made.position
        return made
