"""States from before tokens whose text a stop text may yet claim, so that it can be taken out of the sequence."""

import copy
from collections import deque
from dataclasses import dataclass

from torch import Tensor

from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.tokenizers import Detokenizer


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A sequence before a token, when its text had `start` characters. The state in `row` has folded all before."""

    start: int
    folded: int
    recent: deque[tuple[int, bool]]
    detokenizer: Detokenizer
    row: Tensor

    def restore(self, sequence: Sequence) -> None:
        """Puts back all but the state. Nothing is pending then."""
        sequence.folded, sequence.pending = self.folded, None
        sequence.recent, sequence.detokenizer = self.recent, self.detokenizer


def mark(sequence: Sequence, start: int, row: Tensor) -> Mark:
    """Of a sequence whose next token is drawn; the state in `row` has folded what was pending."""
    return Mark(
        start=start,
        folded=sequence.position,
        recent=sequence.recent.copy(),
        detokenizer=copy.deepcopy(sequence.detokenizer),
        row=row,
    )


class Backtrack:
    """`before` the first token whose text is not certain."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque()

    @property
    def before(self) -> Mark:
        return self._marks[0]

    def expect(self, before: Mark) -> None:
        """A token comes now, whose mark this is."""
        self._marks.append(before)

    def heard(self, num_shown: int) -> None:
        """It came; so many characters of the text are certain now."""
        start = max(each.start for each in self._marks if each.start <= num_shown)
        while self._marks[0].start < start:
            self._marks.popleft()
