"""A job's text as it grows: whole characters only, and nothing that a stop text may yet claim."""

from collections.abc import Sequence

from ssp_runtime.tokenizers import Detokenizer


class TextStream:
    """Feed it ids; `text` is what may be shown now, `stopped` tells whether a stop text was completed."""

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str], min_tokens: int = 0) -> None:
        self._detokenizer, self._stops, self._min_tokens = detokenizer, stops, min_tokens
        self._held = ""
        self._pushed = 0
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that this token makes certain. Before `min_tokens` no stop text counts."""
        self._held += self._detokenizer.push([token])
        self._pushed += 1
        if self._pushed < self._min_tokens:
            return self.flush(final=False)
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            shown, self._held = self._held[: min(ends)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    @property
    def held(self) -> str:
        """Text that a stop text may yet claim."""
        return self._held

    def flush(self, *, final: bool) -> str:
        """What was held back for a stop text that did not come; if nothing ever follows, half a character too."""
        shown, self._held = self._held, ""
        return shown + (self._detokenizer.finish() if final else "")


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
