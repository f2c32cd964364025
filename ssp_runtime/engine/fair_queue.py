"""Who is next in line: by priority, then the owner that was served least, then the longest wait. Pure Python.

Among owners of one priority it is start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM
1996) with served tokens for lengths, corrected once they are known as in Sheng et al., "Fairness in Serving Large
Language Models", OSDI 2024. An owner's tag is the tokens that its turns have taken; the lowest tag is next. Who joins
the line starts no lower than the latest turn did, so absence saves up nothing. Who leaves in debt finds it on return,
as long as its priority is in use.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Protocol, TypeVar


class Claimant(Protocol):
    """Neither attribute may change while the queue knows the call."""

    @property
    def priority(self) -> int:
        """Lower is sooner."""

    @property
    def owner(self) -> str:
        """Whom its tokens are charged to, such as a tenant."""


C = TypeVar("C", bound=Claimant)


@dataclass(eq=False)
class _Flow(Generic[C]):
    """The calls of one owner and priority; `in_line` are those that want a turn, with their places."""

    priority: int
    tag: int = 0
    num_calls: int = 0
    in_line: OrderedDict[C, int] = field(default_factory=OrderedDict)

    @property
    def rank(self) -> tuple[int, ...]:
        return self.priority, self.tag, next(iter(self.in_line.values()))


@dataclass(eq=False)
class _Level(Generic[C]):
    """The owners of one priority, those in debt included, and the tag of its latest turn."""

    flows: dict[str, _Flow[C]] = field(default_factory=dict)
    virtual_time: int = 0
    num_calls: int = 0


class FairQueue(Generic[C]):
    """A turn is charged in advance, by `turn_tokens`; `charge` corrects it. Every change costs a binary search among
    the owners in line."""

    def __init__(self, turn_tokens: int) -> None:
        self._turn_tokens = turn_tokens
        self._levels: dict[int, _Level[C]] = {}
        self._flows: dict[C, _Flow[C]] = {}  # of every known call
        self._line: list[_Flow[C]] = []  # by rank; the flows that want a turn
        self._places = count(1)
        self._num_in_line = 0

    def __len__(self) -> int:
        return self._num_in_line

    def __contains__(self, call: C) -> bool:
        """Whether it was pushed and not forgotten."""
        return call in self._flows

    @property
    def first(self) -> C:
        return next(iter(self._line[0].in_line))

    def push(self, call: C, *, front: bool = False) -> None:
        """Stands in line for a turn, behind or before its owner's other calls."""
        flow = self._flows.get(call) or self._enter(call)
        assert call not in flow.in_line
        with self._moved(flow):
            if not flow.in_line:
                flow.tag = max(flow.tag, self._levels[flow.priority].virtual_time)
            flow.in_line[call] = next(self._places)
            flow.in_line.move_to_end(call, last=not front)
        self._num_in_line += 1

    def pop(self) -> C:
        """Gives the first one a turn."""
        flow, call = self._line[0], self.first
        self._levels[flow.priority].virtual_time = flow.tag
        with self._moved(flow):
            flow.in_line.pop(call)
            flow.tag += self._turn_tokens
        self._num_in_line -= 1
        return call

    def charge(self, call: C, tokens: int) -> None:
        """Corrects what the call's turn took; negative for what it left."""
        flow = self._flows[call]
        with self._moved(flow):
            flow.tag += tokens

    def leave(self, call: C) -> None:
        """The call wants no turn for now."""
        flow = self._flows[call]
        if call in flow.in_line:
            with self._moved(flow):
                flow.in_line.pop(call)
            self._num_in_line -= 1

    def forget(self, call: C) -> None:
        self.leave(call)
        self._drop(self._flows.pop(call), call.owner)

    def _enter(self, call: C) -> _Flow[C]:
        level = self._levels.setdefault(call.priority, _Level())
        flow = level.flows.setdefault(call.owner, _Flow(call.priority))
        self._flows[call] = flow
        flow.num_calls += 1
        level.num_calls += 1
        return flow

    def _drop(self, flow: _Flow[C], owner: str) -> None:
        level = self._levels[flow.priority]
        flow.num_calls -= 1
        level.num_calls -= 1
        if not level.num_calls:
            del self._levels[flow.priority]
        elif not flow.num_calls and flow.tag <= level.virtual_time:
            del level.flows[owner]

    @contextmanager
    def _moved(self, flow: _Flow[C]) -> Iterator[None]:
        """Puts the flow where it belongs after its rank has changed."""
        if flow.in_line:
            del self._line[bisect_left(self._line, flow.rank, key=_rank)]
        yield
        if flow.in_line:
            insort(self._line, flow, key=_rank)


def _rank(flow: _Flow[Any]) -> tuple[int, ...]:
    return flow.rank
