"""Where masks are put, and what is asked of a sequence."""

import pytest

from ssp_runtime.engine.masking import Masked, masked
from ssp_runtime.errors import InvalidRequest

MASK = 9


def readings(ids: list[int], *positions: int, separately: bool = False) -> list[Masked]:
    return list(masked(ids, positions, MASK, separately=separately))


def test_all_masks_at_once() -> None:
    assert readings([1, MASK, 3, 4], 3, 0) == [Masked(ids=[MASK, MASK, 3, MASK], places=[0, 1, 3])]
    assert readings([MASK, 1], 0) == [Masked(ids=[MASK, 1], places=[0])], "a place that is masked already"


def test_one_at_a_time() -> None:
    """Masks that come with the sequence stay: nobody knows what stood there."""
    assert readings([1, MASK, 3, 4], 3, 0, separately=True) == [
        Masked(ids=[1, MASK, 3, 4], places=[1]),
        Masked(ids=[MASK, MASK, 3, 4], places=[0]),
        Masked(ids=[1, MASK, 3, MASK], places=[3]),
    ]
    assert readings([1, 2], 1, separately=True) == [Masked(ids=[1, MASK], places=[1])]


@pytest.mark.parametrize("separately", [False, True])
@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ((), "it has no mask; put one in, or give positions to be masked"),
        ((0, 3), "position 3 is outside it: positions are 0 to 2"),
        ((-1,), "position -1 is outside it"),
        ((1, 0, 1), "position 1 is given twice"),
    ],
)
def test_nothing_to_fill_in(positions: tuple[int, ...], message: str, separately: bool) -> None:
    with pytest.raises(InvalidRequest, match=message):
        readings([1, 2, 3], *positions, separately=separately)
