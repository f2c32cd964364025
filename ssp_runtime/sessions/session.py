"""A session: a sequence with a name."""

import asyncio
import re
import secrets
import time
from dataclasses import dataclass, field

from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import InvalidRequest

_ROUTING_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHECKPOINT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\.[0-9a-f]{32}")

_UNSAVED_USE = 0.25  # of its ttl: a session that was used so long after it was saved is saved anew


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a sequence stands. Its state changes with its version; `num_takes` tells what of its last call's results
    its reader has."""

    position: int
    version: int
    num_takes: int
    last_used: float  # seconds since 1970

    @classmethod
    def of(cls, sequence: Sequence) -> "Standing":
        num_takes = 0 if sequence.last_call is None else sequence.last_call.num_takes
        return cls(
            position=sequence.position, version=sequence.version, num_takes=num_takes, last_used=sequence.last_used
        )

    def is_same(self, other: "Standing") -> bool:
        return (self.version, self.num_takes) == (other.version, other.num_takes)


@dataclass(eq=False, kw_only=True)
class Checkpoint:
    """A sequence that nobody calls; None while only the store has it, there under a key of its own."""

    position: int
    sequence: Sequence | None
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    saved_at: float | None = None  # seconds since 1970; None: the store does not have it

    @property
    def is_lost(self) -> bool:
        """Whether its state was found not to be finite."""
        return self.sequence is not None and self.sequence.broken


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What the store has of a session: the standing, under a version of the store's own count, which grows with each
    save; and keys of checkpoints, among them such as are to be deleted."""

    standing: Standing
    version: int
    checkpoints: frozenset[str]


@dataclass(eq=False, kw_only=True)
class Session:
    """`number` grows with every session that is opened. `resident` is its sequence, None while only the store has it;
    then `saved` tells where it stands."""

    id: str
    number: int
    model: str
    resident: Sequence | None
    owner: str = ""
    ttl: float | None = None  # seconds that it is kept unused; None: for ever
    request: str = ""  # what a retry of the call that made it is known by
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    is_durable: bool = False  # there is a store
    saved: Saved | None = None
    tried: int = 0  # the newest version that the store may have of it
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    pins: int = 0  # callers that need it in memory
    has_moved: bool = False  # it is not this server's any more

    @property
    def sequence(self) -> Sequence:
        assert self.resident is not None
        return self.resident

    @property
    def standing(self) -> Standing:
        resident = self.resident
        if resident is not None:
            return Standing.of(resident)
        assert self.saved is not None
        return self.saved.standing

    @property
    def committed_position(self) -> int:
        """What a restart would not lose; without a store, what finished calls have brought."""
        if not self.is_durable:
            return self.sequence.settled
        return self.saved.standing.position if self.saved is not None else 0

    @property
    def is_clean(self) -> bool:
        """Whether the store has all there is, but for what a call under way will bring."""
        return self.resident is None or (self.has_saved(self.standing) and not self.is_stale)

    def has_saved(self, standing: Standing) -> bool:
        """Whether the store has that, and all checkpoints."""
        saved = self.saved is not None and self.saved.standing.is_same(standing)
        return saved and all(kept.saved_at is not None or kept.is_lost for kept in list(self.checkpoints.values()))

    @property
    def is_stale(self) -> bool:
        """Whether it was used so long after it was saved that the store might let it expire."""
        resident = self.resident
        if self.ttl is None or self.saved is None or resident is None:
            return False
        used = time.time() if self.is_busy else resident.last_used
        return used - self.saved.standing.last_used > self.ttl * _UNSAVED_USE

    @property
    def is_busy(self) -> bool:
        resident = self.resident
        return resident is not None and resident.is_busy

    @property
    def is_in_use(self) -> bool:
        return self.is_busy or self.pins > 0

    @property
    def sequences(self) -> list[Sequence]:
        """All that are in memory."""
        kept = [checkpoint.sequence for checkpoint in self.checkpoints.values()]
        return [sequence for sequence in (self.resident, *kept) if sequence is not None]

    def touch(self) -> None:
        """It was used."""
        if self.resident is not None:
            self.resident.last_used = time.time()

    @property
    def has_expired(self) -> bool:
        """Whether nobody used it for as long as it was to be kept."""
        if self.ttl is None or self.is_in_use:
            return False
        return time.time() - self.standing.last_used > self.ttl


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
