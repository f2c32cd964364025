"""When readers are told."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ssp_runtime.engine.chunks import Chunking, Herald

SHARED = Chunking(max_tokens=8, max_delay=0.02, elastic=True)


@dataclass(eq=False)
class Stream:
    name: str
    chunking: Chunking = SHARED


class Rounds:
    """A herald and whom it tells, round by round."""

    def __init__(self, streams: int = 1) -> None:
        self._told: list[str] = []
        self.herald = Herald[Stream](lambda told: self._told.extend(stream.name for stream in told))
        self._streams = streams
        self._now = 0.0

    def round(self, now: float, *expected: Stream) -> list[str]:
        for stream in expected:
            self.herald.expect(stream)
        self.herald.tell(now, now + (now - self._now), self._streams)
        self._now = now
        return self.told()

    def told(self) -> list[str]:
        told, self._told = self._told, []
        return told


@pytest.fixture
def rounds() -> Iterator[Rounds]:
    made = Rounds()
    made.round(10.0)
    made.round(10.001)
    yield made


def test_what_shall_not_wait_is_told_of_at_once_and_once(rounds: Rounds) -> None:
    full, other = Stream("full"), Stream("other")
    rounds.herald.news(full)
    assert rounds.round(10.002, other) == ["full"]
    assert rounds.round(10.003) == []


def test_a_stream_is_told_of_when_its_oldest_token_would_be_too_old_at_the_next_look(rounds: Rounds) -> None:
    stream = Stream("a", Chunking(max_tokens=8, max_delay=0.0205))
    moments = [10.002 + 0.001 * step for step in range(40)]
    told = [round(now, 3) for now in moments if rounds.round(now, stream)]
    assert told == [10.021, 10.041], "its tokens came from the round that ended at 10.001 on, then from 10.021 on"


def test_where_rounds_are_long_nobody_waits_for_another(rounds: Rounds) -> None:
    stream = Stream("a")
    rounds.round(11.0)
    assert [rounds.round(now, stream) for now in (12.0, 13.0)] == [["a"], ["a"]]


def test_a_stream_that_filled_a_chunk_while_it_waited_is_told_once(rounds: Rounds) -> None:
    stream = Stream("a")
    assert rounds.round(10.002, stream) == []
    rounds.herald.news(stream)
    assert rounds.round(10.003) == ["a"]
    assert [now for now in (10.01, 10.02, 10.03) if rounds.round(now)] == []


def test_who_has_news_while_others_are_told_is_told_at_the_next_look() -> None:
    late, told = Stream("late"), []

    def deliver(streams: list[Stream]) -> None:
        told.append([stream.name for stream in streams])
        herald.news(late)

    herald = Herald[Stream](deliver)
    herald.news(Stream("a"))
    herald.tell(10.0, 10.0, 1)
    herald.tell(10.1, 10.1, 1)
    assert told[:2] == [["a"], ["late"]]


def test_nobody_need_look_before_the_first_is_due(rounds: Rounds) -> None:
    assert rounds.herald.patience(10.002, 1.0) == 1.0
    rounds.round(10.002, Stream("a"))
    rounds.round(10.01, Stream("b"))
    assert rounds.herald.patience(10.011, 1.0) == pytest.approx(0.01)
    assert rounds.herald.patience(10.011, 0.001) == 0.001
    assert rounds.herald.patience(11.0, 1.0) == 0.0


def test_chunks_of_many_streams_wait_longer_and_go_together() -> None:
    assert SHARED.delay(1, 5.0) == SHARED.delay(10, 5.01) == 0.02
    moments = [now + SHARED.delay(64, now) for now in (5.25, 5.3, 5.35, 5.37)]
    assert moments == pytest.approx([5.376] * 3 + [5.504]), "every 0.128 seconds, but none for a token or two"


def test_the_streams_that_share_an_engine_are_counted() -> None:
    rounds = Rounds(streams=64)
    rounds.round(5.3)
    rounds.round(5.301)
    stream = Stream("a")
    told = [now for now in range(5302, 5500) if rounds.round(now / 1000, stream)]
    assert told == [5375]


def test_a_delay_that_a_client_names_is_kept() -> None:
    assert Chunking(max_tokens=8, max_delay=0.02).delay(10_000, 5.0) == 0.02
