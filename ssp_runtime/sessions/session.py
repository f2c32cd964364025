"""A session: a sequence with a name."""

import re
import secrets
import time
from dataclasses import dataclass, field

from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import InvalidRequest

_ROUTING_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHECKPOINT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\.[0-9a-f]{32}")


@dataclass(eq=False, kw_only=True)
class Session:
    """`number` grows with every session that is opened. Checkpoints are sequences that nobody calls."""

    id: str
    number: int
    model: str
    sequence: Sequence
    ttl: float | None = None  # seconds that it is kept unused; None: for ever
    checkpoints: dict[str, Sequence] = field(default_factory=dict)
    created: float = field(default_factory=time.time)

    def touch(self) -> None:
        """It was used."""
        self.sequence.last_used = time.time()

    @property
    def has_expired(self) -> bool:
        """Whether nobody used it for as long as it was to be kept."""
        idle = self.ttl is not None and self.sequence.call is None
        return idle and self.ttl is not None and time.time() - self.sequence.last_used > self.ttl


def new_id(routing_key: str) -> str:
    """`<routing_key>.<128-bit secret>`; an empty key is made up. Raises `InvalidRequest` for a malformed one."""
    if routing_key and not _ROUTING_KEY.fullmatch(routing_key):
        raise InvalidRequest("routing_key must be 1 to 64 letters, digits, '-' or '_'")
    return f"{routing_key or secrets.token_hex(4)}.{secrets.token_hex(16)}"


def check_checkpoint_name(name: str) -> None:
    """Raises `InvalidRequest` for a malformed one."""
    if not _CHECKPOINT.fullmatch(name):
        raise InvalidRequest("the name of a checkpoint must be 1 to 64 letters, digits, '.', '-' or '_'")


def check_id(session_id: str) -> None:
    """Raises `InvalidRequest` for a text that cannot be a session's id."""
    if not _ID.fullmatch(session_id):
        raise InvalidRequest("a session_id is <routing_key>.<32 hexadecimal digits>, as OpenSession returned it")
