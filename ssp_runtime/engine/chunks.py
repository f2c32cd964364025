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
        """There is something to take that shall not wait."""
        self._due[stream] = None

    def expect(self, stream: T) -> None:
        """The first token of a chunk came."""
        if stream not in self._deadlines:
            self._deadlines[stream] = self._now + stream.chunking.delay(self._streams, self._now)

    def patience(self, now: float, most: float) -> float:
        """For how many seconds nobody need look."""
        first = min(self._deadlines.values(), default=now + most)
        return min(most, max(0.0, first - now))

    def tell(self, now: float, next_look: float, streams: int) -> None:
        """Tells those for whom it is time, or would be before the next look."""
        self._now, self._streams = now, streams
        self._due |= dict.fromkeys(stream for stream, deadline in self._deadlines.items() if deadline <= next_look)
        if self._due:
            due = list(self._due)
            self._deliver(due)
            for stream in due:  # which may have had more of them looked at
                self._deadlines.pop(stream, None)
                del self._due[stream]
