"""Who computes next. Pure Python: it knows numbers of tokens, not tensors.

Running streams come first: every round advances all of them by one token, then spends what the latency target leaves
on prompts, in pieces whose size follows the measured speed. A long prompt so delays a stream by one piece at most.
`pieces` shares a round out among prompts; `observe_prefill` tells what it took. Which calls have a slot at all is
decided in `turns`.

Half of the prompts' tokens go to the oldest prompt, so that each is folded after those before it at the latest; half to
the shortest, so that a short one waits for shorter ones only, however long the others are. A better priority comes
before both.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Prompt(Protocol):
    """A call with tokens still to fold."""

    @property
    def num_to_fold(self) -> int: ...

    @property
    def priority(self) -> int:
        """Lower is sooner."""

    @property
    def submitted(self) -> float:
        """When; seconds of any clock."""


P = TypeVar("P", bound=Prompt)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """`piece_seconds` is what prompts may add to one round; pieces have `min_piece` to `max_piece` tokens. While others
    wait for a slot, a call computes `turn_tokens` at a time."""

    piece_seconds: float = 0.02
    min_piece: int = 32
    max_piece: int = 2048
    turn_tokens: int = 256


class Scheduler:
    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._tokens_per_second = config.min_piece / config.piece_seconds
        self._owed = 0  # tokens to the oldest prompt

    def pieces(self, prompts: Iterable[P], *, streams: int) -> list[tuple[P, int]]:
        """The prompts to advance this round, and by how many tokens each. Half of the budget is the oldest's, the rest
        goes to the shortest first; with budgets too small to halve, rounds alternate."""
        by_age = sorted(prompts, key=lambda prompt: (prompt.priority, prompt.submitted))
        if not by_age:
            return []
        oldest, budget = by_age[0], self._budget(streams)
        self._owed = min(budget, self._owed + budget // 2)
        counts = dict.fromkeys(by_age, 0)
        shortest_first = sorted(by_age, key=lambda prompt: (prompt.priority, prompt.num_to_fold))
        for prompt, most in [(oldest, self._owed), *((prompt, budget) for prompt in shortest_first)]:
            count = self._fitting(prompt.num_to_fold - counts[prompt], min(most, budget))
            counts[prompt] += count
            budget -= count
        self._owed = max(0, self._owed - counts[oldest])
        return [(prompt, count) for prompt, count in counts.items() if count]

    def _fitting(self, todo: int, budget: int) -> int:
        """Tokens of a prompt that a budget pays: its end, or a piece that is not too small."""
        count = min(todo, budget)
        return count if count == todo or count >= self._config.min_piece else 0

    def _budget(self, streams: int) -> int:
        return self.piece if streams else self._config.max_piece

    @property
    def piece(self) -> int:
        """Tokens that fit into the latency target."""
        fitting = int(self._tokens_per_second * self._config.piece_seconds)
        return max(self._config.min_piece, min(self._config.max_piece, fitting))

    def observe_prefill(self, tokens: int, seconds: float) -> None:
        """Learns the speed from a round's prompts (an exponential average over about eight of them)."""
        if tokens and seconds > 0:
            self._tokens_per_second += (tokens / seconds - self._tokens_per_second) / 8
