"""How long a call is tried again when the server is away; no I/O."""

from __future__ import annotations

import time

from ssp_client.errors import PositionMismatch, SSPError, Unavailable

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0


class Tries:
    """Of one call: for so many seconds after it failed, and anew whenever something got through."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.reset()

    def reset(self) -> None:
        """Something got through."""
        self._deadline: float | None = None
        self._was_elsewhere = False
        self._pause = FIRST_PAUSE

    def before_retry(self, error: SSPError) -> float | None:
        """Seconds to wait, as the server says or twice as long every time; None if `error` is final.

        A session that stands elsewhere than its client thinks may have been lost in between: that is looked into at
        once, and once.
        """
        if self._seconds and isinstance(error, PositionMismatch) and not self._was_elsewhere:
            self._was_elsewhere = True
            return 0.0
        if not isinstance(error, Unavailable):
            return None
        now = time.monotonic()
        self._deadline = self._deadline or now + self._seconds
        pause = self._pause if error.retry_after is None else error.retry_after
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return pause if now + pause < self._deadline else None
