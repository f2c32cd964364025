"""What can go wrong, for users. Our own broken invariants are assertions, not these.

SSPError
├── InvalidRequest (ValueError)     an argument that cannot be served
│   └── StateNotSealed              a state that no server with this key gave to this tenant
├── ArtifactError (ValueError)      a model folder that cannot be loaded, or is not what it claims
├── NotFound (LookupError)
│   ├── UnknownModel
│   ├── UnknownSession
│   │   └── SessionExpired
│   └── UnknownCheckpoint
├── Conflict
│   ├── PositionMismatch            the session stands elsewhere than the caller expected
│   ├── SessionBusy                 another call on it is under way
│   ├── SessionMoved                another server has saved a newer version of it
│   └── StreamCut                   nobody read what a call brought
├── Forbidden                       the operator of this server did not allow it
├── ChatUnavailable                 there is no chat template, or the operator did not allow it
├── ChatTemplateFailed              it cannot be rendered
├── ModelExists                     another model has that name
├── ModelInUse                      its sessions would be lost
├── Exhausted                       no room now; `retry_after` seconds says when to ask again
│   └── StoreFull                   in the session store
├── StateCorrupt                    a session's state is lost
├── SnapshotCorrupt                 a snapshot is damaged
├── ModelMismatch                   a snapshot of another model
├── StoreUnavailable                the session store does not answer
└── Draining                        the server is going away
"""

import difflib
from collections.abc import Iterable


class SSPError(Exception):
    """Base of every error meant for users."""


class InvalidRequest(SSPError, ValueError):
    pass


class StateNotSealed(InvalidRequest):
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


class SessionMoved(Conflict):
    """The stored version is not the one that was expected."""


class StreamCut(Conflict):
    pass


class Forbidden(SSPError):
    pass


class ChatUnavailable(SSPError):
    pass


class ChatTemplateFailed(SSPError):
    pass


class ModelExists(SSPError):
    pass


class ModelInUse(SSPError):
    pass


class Exhausted(SSPError):
    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreFull(Exhausted):
    pass


class StateCorrupt(SSPError):
    """A state holds NaN or infinite values."""


class SnapshotCorrupt(SSPError):
    """A snapshot is not, or not any more, what was written."""


class ModelMismatch(SSPError):
    pass


class StoreUnavailable(SSPError):
    """What was asked of the store may or may not have been done."""


class Draining(SSPError):
    pass


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest of those that are known, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f": there are {', '.join(names)}"
