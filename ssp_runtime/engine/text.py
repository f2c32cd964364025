"""A job's text as it grows: whole characters only, and nothing that a stop text may yet claim."""

from collections.abc import Sequence

from ssp_runtime.tokenizers import Detokenizer


class TextStream:
    """Feed it ids; `text` is what may be shown now, `stopped` tells whether a stop text was completed."""

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str] = (), min_tokens: int = 0) -> None:
        self._detokenizer, self._stops, self._min_tokens = detokenizer, stops, min_tokens
        self._held = ""
        self._pushed = 0
        self.num_shown = 0  # characters
        self.stopped = False

    def push(self, ids: Sequence[int]) -> str:
        """The text that these tokens make certain; one at a time where a stop text may come. Before `min_tokens` none
        counts."""
        self._held += self._detokenizer.push(ids)
        self._pushed += len(ids)
        seeks = self._stops and self._pushed >= self._min_tokens
        return self._shown(self._certain() if seeks else len(self._held))

    def _certain(self) -> int:
        """How much of what is held may be shown."""
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return min(ends)
        return len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0)

    def _shown(self, count: int) -> str:
        shown, self._held = self._held[:count], "" if self.stopped else self._held[count:]
        self.num_shown += count
        return shown

    @property
    def num_characters(self) -> int:
        return self.num_shown + len(self._held)

    @property
    def held(self) -> str:
        """Text that a stop text may yet claim."""
        return self._held

    def resume(self, held: str, num_tokens: int) -> None:
        """As if so many tokens had come before, the last of whose text is held."""
        self._held, self._pushed = held, num_tokens

    def flush(self, *, final: bool) -> str:
        """What was held back for a stop text that did not come; if nothing ever follows, half a character too."""
        return self._shown(len(self._held)) + (self._detokenizer.finish() if final else "")


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
