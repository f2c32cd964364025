"""Who computes next. Pure Python: it knows numbers of tokens, not tensors.

Running streams come first: every round advances all of them by one token, then spends what the latency target leaves on
prompts, oldest call first, in pieces whose size follows the measured speed. A long prompt so delays a stream by one
piece at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Prompt(Protocol):
    """A call with tokens still to fold."""

    @property
    def todo(self) -> Sequence[int]: ...


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """`piece_seconds` is what prompts may add to one round; pieces have `min_piece` to `max_piece` tokens."""

    piece_seconds: float = 0.02
    min_piece: int = 32
    max_piece: int = 2048


class Scheduler:
    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._tokens_per_second = config.min_piece / config.piece_seconds

    def prefill(self, waiting: Sequence[Prompt], *, streams: int) -> list[tuple[Prompt, int]]:
        """The prompts to advance this round, and by how many tokens each. With no stream to delay, the bound is the
        largest piece."""
        budget = self.piece if streams else self._config.max_piece
        plan: list[tuple[Prompt, int]] = []
        for prompt in waiting:
            if budget <= 0:
                break
            count = min(len(prompt.todo), budget)
            plan.append((prompt, count))
            budget -= count
        return plan

    @property
    def piece(self) -> int:
        """Tokens that fit into the latency target."""
        fitting = int(self._tokens_per_second * self._config.piece_seconds)
        return max(self._config.min_piece, min(self._config.max_piece, fitting))

    def observe_prefill(self, tokens: int, seconds: float) -> None:
        """Learns the speed from a round's prompts (an exponential average over about eight of them)."""
        if tokens and seconds > 0:
            self._tokens_per_second += (tokens / seconds - self._tokens_per_second) / 8
