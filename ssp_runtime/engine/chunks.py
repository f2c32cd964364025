"""When readers are told of new tokens. A message costs far more than a token, and so does waking a thread for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

CHUNKS_PER_SECOND = 500  # of all streams together, about; gRPC takes 0.1 ms of processor time for each


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """Tokens are told of when `max_tokens` wait, or when the oldest is `max_delay` seconds old. An `elastic` delay is
    longer where many streams share the engine."""

    max_tokens: int = 1
    max_delay: float = 0.0
    elastic: bool = False

    def delay(self, streams: int, now: float) -> float:
        """Of a chunk whose oldest token came now. Chunks of many streams go all at the same moments, which takes half
        the processor time of going one by one."""
        shared = streams / CHUNKS_PER_SECOND
        if not self.elastic or shared <= self.max_delay:
            return self.max_delay
        delay = shared - now % shared
        return delay if delay >= self.max_delay else delay + shared


AT_ONCE = Chunking()


class Stream(Protocol):
    @property
    def chunking(self) -> Chunking: ...

    @property
    def has_chunk(self) -> bool:
        """Whether its reader should not wait for more."""


T = TypeVar("T", bound=Stream)


class Herald(Generic[T]):
    """Of one thread, which looks with every `tell`; time is passed in. Nobody is told later than is right, but for
    what a round takes longer than the one before it."""

    def __init__(self, deliver: Callable[[list[T]], None]) -> None:
        self._deliver = deliver
        self._due: dict[T, None] = {}
        self._deadlines: dict[T, float] = {}
        self._now = 0.0
        self._streams = 0

    def news(self, stream: T) -> None:
        """There is more to take of a stream."""
        if stream.has_chunk:
            self._due[stream] = None
        elif stream not in self._deadlines:
            self._deadlines[stream] = self._now + stream.chunking.delay(self._streams, self._now)

    def tell(self, now: float, streams: int) -> None:
        """Tells those for whom it is time, or would be before the next look."""
        next_look = now + (now - self._now)
        self._now, self._streams = now, streams
        self._due |= dict.fromkeys(stream for stream, deadline in self._deadlines.items() if deadline <= next_look)
        for stream in self._due:
            self._deadlines.pop(stream, None)
        if self._due:
            due, self._due = list(self._due), {}
            self._deliver(due)

    def tell_all(self) -> None:
        """Nobody will look for a while."""
        self._due |= dict.fromkeys(self._deadlines)
        self.tell(self._now, self._streams)
