"""Who computes next, as traces of decisions."""

from dataclasses import dataclass, field

import pytest

from ssp_runtime.engine.scheduler import Scheduler, SchedulerConfig

CONFIG = SchedulerConfig(piece_seconds=0.02, min_piece=32, max_piece=2048)


@dataclass
class Waiting:
    name: str
    todo: list[int] = field(default_factory=list)


def prompt(name: str, tokens: int) -> Waiting:
    return Waiting(name, [0] * tokens)


def plan(scheduler: Scheduler, *waiting: Waiting, streams: int) -> list[tuple[str, int]]:
    chosen = scheduler.prefill(waiting, streams=streams)
    return [(found.name, count) for found, count in chosen if isinstance(found, Waiting)]


def test_while_streams_run_a_round_folds_one_piece_at_most() -> None:
    assert plan(Scheduler(CONFIG), prompt("long", 10_000), streams=1) == [("long", 32)]


def test_without_streams_a_round_folds_the_largest_piece() -> None:
    assert plan(Scheduler(CONFIG), prompt("long", 10_000), streams=0) == [("long", 2048)]


def test_the_oldest_comes_first_and_what_is_left_goes_to_the_next() -> None:
    waiting = prompt("a", 20), prompt("b", 5), prompt("c", 100), prompt("d", 1)
    assert plan(Scheduler(CONFIG), *waiting, streams=3) == [("a", 20), ("b", 5), ("c", 7)]


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
    while waiting.todo:
        ((_, count),) = plan(scheduler, waiting, streams=1)
        waiting.todo = waiting.todo[count:]
        rounds.append(count)
    assert rounds == [32, 32, 32, 4]
