"""Who computes in a slot, and for how long. Pure Python; time is passed in.

More calls than slots is normal, and a state is cheap to swap. A call that has a slot has it for a turn of
`turn_tokens`; then it stands in line again (see `fair_queue`) if others wait, and goes on where it is if nobody does or
if it is next itself. A call of better priority need not wait for that: it takes the slot of the worst. The engine's
round:

    for call in turns.late(now): finish it          # and forget it
    yielding, entering = turns.turnover(now)        # spill the ones, place the others
    compute; turns.stepped(calls)                   # and `computed` for more tokens than one of a call

`add` is for a call that wants a slot, `rest` for one that wants none until its reader catches up, `forget` for one that
has ended.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, NamedTuple, Protocol, TypeVar

from ssp_runtime.engine.fair_queue import Claimant, FairQueue

MIN_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 60.0


class Task(Claimant, Protocol):
    @property
    def deadline(self) -> float | None:
        """In the seconds of `now`; after it the call is of no use."""


T = TypeVar("T", bound=Task)


class Turnover(NamedTuple, Generic[T]):
    """The calls that give their slots back, and those that get one."""

    yielding: list[T]
    entering: list[T]


class Turns(Generic[T]):
    """Calls are told apart by identity or their hash. One thread decides; others may read the numbers."""

    def __init__(self, num_slots: int, turn_tokens: int) -> None:
        self._num_slots, self._turn_tokens = num_slots, turn_tokens
        self._queue: FairQueue[T] = FairQueue(turn_tokens)
        self._left: dict[T, int] = {}  # of those with a slot: tokens left of the turn; 0: it is over
        self._deadlines = _Deadlines[T]()
        self._pace = _Pace()

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    def add(self, task: T) -> None:
        """The call waits for a slot from now on. It must not wait or have one already."""
        assert task not in self._left
        if task not in self._queue:
            self._deadlines.add(task)
        self._queue.push(task)

    def rest(self, task: T) -> None:
        """The call waits no more and gives back its slot; it is charged for what it computed only."""
        self._queue.charge(task, -self._left.pop(task, 0))
        self._queue.leave(task)

    def forget(self, task: T) -> None:
        """Frees all that is known of a call. Nothing happens if nothing is."""
        if task in self._queue:
            self.rest(task)
            self._queue.forget(task)
            self._deadlines.remove(task)
            self._pace.ended += 1

    def has_slot(self, task: T) -> bool:
        return task in self._left

    def late(self, now: float) -> list[T]:
        """The calls whose deadline has passed, resting ones too. They hold no slot and get none any more."""
        late = self._deadlines.before(now)
        for task in late:
            self.rest(task)
        return late

    def stepped(self, tasks: Iterable[T]) -> None:
        """A token of each of these calls; as `computed`."""
        for task in tasks:
            if left := self._left[task]:
                self._left[task] = left - 1

    def computed(self, task: T, tokens: int) -> None:
        """Tokens of a call with a slot. What it computes when its turn is over is free, for then nobody waits."""
        left = self._left[task]
        if tokens > left > 0:
            self._queue.charge(task, tokens - left)
        self._left[task] = max(0, left - tokens)

    def turnover(self, now: float) -> Turnover[T]:
        """Decides who has the slots now. No more yield than others need, none whose turn goes on to its equals."""
        self._pace.observe(now)
        before = list(self._left)
        if len(self._queue) > self._num_free:
            self._end_turns()
        while self._queue and (self._num_free or self._preempt(self._queue.first.priority)):
            self._left[self._queue.pop()] = self._turn_tokens
        self._pace.under_load = bool(self._queue)
        seated = set(before)
        entering = [task for task in self._left if task not in seated]
        return Turnover([task for task in before if task not in self._left], entering)

    def retry_after(self, num_waiting: int) -> float:
        """Seconds in which that many calls will have ended, from how fast they do under load."""
        return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, num_waiting * self._pace.seconds_per_call))

    @property
    def _num_free(self) -> int:
        return self._num_slots - len(self._left)

    def _end_turns(self) -> None:
        """Those whose turn is over stand in line, behind who waits already."""
        for task in [task for task, left in self._left.items() if not left]:
            del self._left[task]
            self._queue.push(task)

    def _preempt(self, priority: int) -> bool:
        """Frees the slot of the worst call, the newest among those, if it is worse than `priority`."""
        worst = max(reversed(self._left), key=lambda task: task.priority)
        if worst.priority <= priority:
            return False
        self._queue.charge(worst, -self._left.pop(worst))
        self._queue.push(worst, front=True)
        return True


@dataclass(order=True, frozen=True)
class _Deadline(Generic[T]):
    seconds: float
    number: int
    task: T = field(compare=False)


class _Deadlines(Generic[T]):
    def __init__(self) -> None:
        self._sorted: list[_Deadline[T]] = []
        self._of: dict[T, _Deadline[T]] = {}
        self._numbers = count()

    def add(self, task: T) -> None:
        if task.deadline is not None:
            self._of[task] = _Deadline(task.deadline, next(self._numbers), task)
            insort(self._sorted, self._of[task])

    def remove(self, task: T) -> None:
        deadline = self._of.pop(task, None)
        if deadline is not None:
            del self._sorted[bisect_left(self._sorted, deadline)]

    def before(self, now: float) -> list[T]:
        end = bisect_left(self._sorted, now, key=lambda deadline: deadline.seconds)
        return [deadline.task for deadline in self._sorted[:end]]


class _Pace:
    """How fast calls end while others wait: an average over about the last minute of such times."""

    def __init__(self) -> None:
        self.ended = 0  # since the last observation
        self.under_load = False
        self._calls = self._seconds = 1.0  # a guess
        self._observed = 0.0

    @property
    def seconds_per_call(self) -> float:
        return self._seconds / max(self._calls, 1e-9)

    def observe(self, now: float) -> None:
        if self.under_load:
            seconds = now - self._observed
            kept = math.exp(-seconds / 60)
            self._calls = kept * self._calls + self.ended
            self._seconds = kept * self._seconds + seconds
        self.ended, self._observed = 0, now
