"""What can go wrong, for users. Our own broken invariants are assertions, not these.

SSPError
├── InvalidRequest (ValueError)     an argument that cannot be served
├── ArtifactError (ValueError)      a model folder that cannot be loaded, or is not what it claims
├── NotFound (LookupError)
│   ├── UnknownModel
│   ├── UnknownSession
│   │   └── SessionExpired
│   └── UnknownCheckpoint
├── Conflict
│   ├── PositionMismatch            the session stands elsewhere than the caller expected
│   └── SessionBusy                 another call on it is under way
├── Exhausted                       no room now; `retry_after` seconds says when to ask again
├── StateCorrupt                    a session's state is lost
└── Draining                        the server is going away
"""

import difflib
from collections.abc import Iterable


class SSPError(Exception):
    """Base of every error meant for users."""


class InvalidRequest(SSPError, ValueError):
    pass


class ArtifactError(SSPError, ValueError):
    pass


class NotFound(SSPError, LookupError):
    pass


class UnknownModel(NotFound):
    pass


class UnknownSession(NotFound):
    pass


class SessionExpired(UnknownSession):
    pass


class UnknownCheckpoint(NotFound):
    pass


class Conflict(SSPError):
    pass


class PositionMismatch(Conflict):
    pass


class SessionBusy(Conflict):
    pass


class Exhausted(SSPError):
    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StateCorrupt(SSPError):
    """A state holds NaN or infinite values."""


class Draining(SSPError):
    pass


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest of those that are known, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f": there are {', '.join(names)}"
