"""Who computes next, as traces of decisions."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssp_runtime.engine.scheduler import Scheduler, SchedulerConfig

CONFIG = SchedulerConfig(piece_seconds=0.02, min_piece=32, max_piece=2048)


@dataclass(eq=False)
class Waiting:
    name: str
    num_to_fold: int
    submitted: float = 0.0
    priority: int = 0

    def __post_init__(self) -> None:
        self.length = self.num_to_fold


def prompt(name: str, tokens: int, age: float = 0.0, priority: int = 0) -> Waiting:
    return Waiting(name, tokens, -age, priority)


def plan(scheduler: Scheduler, *waiting: Waiting, streams: int) -> list[tuple[str, int]]:
    return [(found.name, count) for found, count in scheduler.pieces(waiting, streams=streams)]


def test_while_streams_run_a_round_folds_one_piece_at_most() -> None:
    assert plan(Scheduler(CONFIG), prompt("long", 10_000), streams=1) == [("long", 32)]


def test_without_streams_a_round_folds_the_largest_piece() -> None:
    assert plan(Scheduler(CONFIG), prompt("long", 10_000), streams=0) == [("long", 2048)]


def test_a_short_prompt_is_not_padded() -> None:
    assert plan(Scheduler(CONFIG), prompt("a", 3), streams=0) == [("a", 3)]


def test_nothing_waits() -> None:
    assert plan(Scheduler(CONFIG), streams=2) == []


def test_the_piece_follows_the_measured_speed() -> None:
    scheduler = Scheduler(CONFIG)
    pieces = []
    for _ in range(60):
        scheduler.observe_prefill(1000, 0.1)  # 10,000 tokens/s: 200 in 20 ms
        pieces.append(scheduler.piece)
    assert pieces == sorted(pieces) and pieces[0] < 60 and pieces[-1] == pytest.approx(200, rel=0.01)


@pytest.mark.parametrize(("seconds", "piece"), [(1e-9, 2048), (1e9, 32)])
def test_the_piece_stays_within_its_bounds(seconds: float, piece: int) -> None:
    scheduler = Scheduler(CONFIG)
    for _ in range(60):
        scheduler.observe_prefill(1000, seconds)
    assert scheduler.piece == piece


@pytest.mark.parametrize(("tokens", "seconds"), [(0, 1.0), (10, 0.0)])
def test_a_measurement_of_nothing_teaches_nothing(tokens: int, seconds: float) -> None:
    scheduler = Scheduler(CONFIG)
    scheduler.observe_prefill(tokens, seconds)
    assert scheduler.piece == 32


def test_a_prompt_is_folded_completely_round_by_round() -> None:
    scheduler, waiting, rounds = Scheduler(CONFIG), prompt("a", 100), []
    while waiting.num_to_fold:
        ((_, count),) = plan(scheduler, waiting, streams=1)
        waiting.num_to_fold -= count
        rounds.append(count)
    assert rounds == [32, 32, 32, 4]


LONG = 10**9


def at_speed(tokens_per_round: int) -> Scheduler:
    """A scheduler that has learnt what fits into a round."""
    return Scheduler(
        SchedulerConfig(piece_seconds=1.0, min_piece=min(32, tokens_per_round), max_piece=tokens_per_round)
    )


def fold(scheduler: Scheduler, prompts: list[Waiting]) -> dict[str, int]:
    """Plays a round; what is folded leaves. No piece is too small, no round too large."""
    plan = scheduler.pieces(prompts, streams=0)
    assert len({prompt for prompt, _ in plan}) == len(plan)
    for prompt, count in plan:
        assert count == prompt.num_to_fold or count >= 32
        prompt.num_to_fold -= count
    prompts[:] = [prompt for prompt in prompts if prompt.num_to_fold]
    return {prompt.name: count for prompt, count in plan}


def test_pieces_fit_into_the_latency_target_while_streams_run() -> None:
    long = prompt("long", LONG)
    assert Scheduler(CONFIG).pieces([long], streams=1) == [(long, 32)]
    assert Scheduler(CONFIG).pieces([long], streams=0) == [(long, 2048)]
    assert Scheduler(CONFIG).pieces([], streams=0) == []


def test_half_of_a_round_is_the_oldest_prompts_and_half_the_shortest() -> None:
    prompts = [prompt("long", LONG // 2, age=1), prompt("oldest", LONG, age=2), prompt("b", 100), prompt("a", 70)]
    assert fold(at_speed(400), prompts) == {"oldest": 200, "a": 70, "b": 100}
    assert fold(at_speed(400), prompts) == {"oldest": 200, "long": 200}


def test_rounds_too_small_to_halve_alternate() -> None:
    scheduler, prompts = at_speed(32), [prompt("oldest", LONG, age=1), prompt("short", 100)]
    assert [fold(scheduler, prompts) for _ in range(4)] == [{"short": 32}, {"oldest": 32}] * 2


def test_what_others_leave_is_the_oldest_prompts() -> None:
    assert fold(at_speed(400), [prompt("oldest", LONG, age=1), prompt("short", 50)]) == {"oldest": 350, "short": 50}


def test_a_better_priority_is_folded_first() -> None:
    prompts = [prompt("oldest", LONG, age=9), prompt("urgent", 1000, priority=-1), prompt("worse", 5, priority=1)]
    scheduler = at_speed(600)
    assert fold(scheduler, prompts) == {"urgent": 600}
    assert fold(scheduler, prompts) == {"urgent": 400, "oldest": 200}


@settings(max_examples=60, deadline=None)
@given(
    budget=st.sampled_from([32, 50, 64, 100, 2048]),
    arrivals=st.lists(st.lists(st.integers(1, 200), max_size=4), min_size=1, max_size=40),
)
def test_the_oldest_prompt_gets_half_however_many_short_ones_come(budget: int, arrivals: list[list[int]]) -> None:
    scheduler, oldest = at_speed(budget), prompt("oldest", LONG, age=1)
    prompts = [oldest]
    for rounds, lengths in enumerate(arrivals, 1):
        prompts += [prompt(f"{rounds}.{number}", length) for number, length in enumerate(lengths)]
        assert sum(fold(scheduler, prompts).values()) <= budget
        assert oldest.length - oldest.num_to_fold > rounds * (budget // 2) - 32


@settings(max_examples=60, deadline=None)
@given(
    budget=st.sampled_from([128, 200, 2048]),
    num_long=st.integers(1, 5),
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=6),
)
def test_a_short_prompt_waits_for_shorter_ones_only(budget: int, num_long: int, lengths: list[int]) -> None:
    """Half of the rounds, less what is too small for a piece, folds the shortest, however many long ones wait."""
    scheduler = at_speed(budget)
    longs = [prompt("long", LONG, age=1 + number) for number in range(num_long)]
    shorts = [prompt(str(number), length) for number, length in enumerate(lengths)]
    prompts, rounds = [*longs, *shorts], 0
    while len(prompts) > num_long:
        fold(scheduler, prompts)
        rounds += 1
        for short in shorts:
            shorter = sum(length for length in lengths if length <= short.length)
            assert not short.num_to_fold or rounds * (budget // 2 - 31) < shorter
