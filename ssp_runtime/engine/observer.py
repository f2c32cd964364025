"""What the engine reports of itself, for metrics. Every method is called from the engine's thread."""

from collections.abc import Sequence

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.progress import FinishReason


class Observer:
    """Does nothing; a server overrides what it measures. Times are in seconds."""

    def stepped(self, rows: int, seconds: float) -> None: ...
    def prefilled(self, tokens: int, seconds: float) -> None: ...
    def admitted(self, call: Call) -> None:
        """It has a slot for the first time; nothing of its prompt is taken in yet."""

    def generated(self, tokens: Sequence[tuple[Call, float | None]]) -> None:
        """A token each of several calls, and the time since the call's token before; None for its first."""

    def finished(self, call: Call, reason: FinishReason) -> None: ...
    def quarantined(self) -> None:
        """The state of an idle sequence was found not to be finite."""

    def spilled(self) -> None: ...
    def restored(self, seconds: float) -> None: ...
