"""A made-up server that plays rounds; every round keeps the laws of who may have a slot."""

from collections import Counter
from dataclasses import dataclass, field

from ssp_runtime.engine.turns import Turns

TURN = 16
ENDLESS = 10**9


@dataclass(eq=False)
class Call:
    """`speed` is the tokens that it computes in a round, `length` after how many it ends."""

    name: str = ""
    owner: str = ""
    priority: int = 0
    deadline: float | None = None
    length: int = ENDLESS
    speed: int = 1
    computed: int = 0


@dataclass
class Server:
    """Each round lasts a second."""

    num_slots: int
    turns: Turns[Call] = field(init=False)
    calls: list[Call] = field(default_factory=list)  # not ended
    seated: list[Call] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)  # tokens by owner
    swaps: int = 0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.turns = Turns(self.num_slots, TURN)

    def add(self, *calls: Call) -> None:
        for call in calls:
            self.calls.append(call)
            self.turns.add(call)

    def end(self, call: Call) -> None:
        self.turns.forget(call)
        self.calls.remove(call)
        if call in self.seated:
            self.seated.remove(call)

    def names(self) -> set[str]:
        return {call.name for call in self.seated}

    def turnover(self) -> None:
        before, num_free = set(self.seated), self.num_slots - len(self.seated)
        yielding, entering = self.turns.turnover(self.now)
        assert before.issuperset(yielding) and before.isdisjoint(entering)
        assert len(yielding) == max(0, len(entering) - num_free), "more or fewer swaps than needed"
        self.swaps += len(yielding)
        self.seated = [*(call for call in self.seated if call not in yielding), *entering]
        waiting = [call for call in self.calls if call not in self.seated]
        assert self.turns.num_waiting == len(waiting)
        assert len(self.seated) == min(self.num_slots, len(self.calls)), "a slot is idle"
        if waiting:
            assert max(call.priority for call in self.seated) <= min(call.priority for call in waiting)

    def round(self) -> list[Call]:
        """The calls that ended in it."""
        self.now += 1
        self.turnover()
        for call in self.seated:
            tokens = min(call.speed, call.length - call.computed)
            call.computed += tokens
            self.served[call.owner] += tokens
            self.turns.computed(call, tokens)
        ended = [call for call in self.seated if call.computed == call.length]
        for call in ended:
            self.end(call)
        return ended

    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            self.round()
