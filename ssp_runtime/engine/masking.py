"""Sequences with masks, for a model that fills them in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ssp_runtime.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A sequence to read, and the places in it whose tokens are asked for."""

    ids: list[int]
    places: list[int]


def masked(ids: Sequence[int], positions: Sequence[int], mask_id: int, *, separately: bool) -> Iterator[Masked]:
    """The sequence with its own masks and those that are put at `positions`: all in one, or, `separately`, each of the
    latter in one by itself. Every masked place is asked for once.

    Raises:
        InvalidRequest: there is nothing to fill in, or no such place.
    """
    own = [place for place, token in enumerate(ids) if token == mask_id]
    more = _checked(positions, len(ids)) - set(own)
    if not own and not more:
        raise InvalidRequest("it has no mask; put one in, or give positions to be masked")
    return _each_by_itself(ids, own, more, mask_id) if separately else iter([_with_masks(ids, {*own, *more}, mask_id)])


def _checked(positions: Sequence[int], length: int) -> set[int]:
    found = set[int]()
    for place in positions:
        if not 0 <= place < length:
            raise InvalidRequest(f"position {place} is outside it: positions are 0 to {length - 1}")
        if place in found:
            raise InvalidRequest(f"position {place} is given twice")
        found.add(place)
    return found


def _with_masks(ids: Sequence[int], places: set[int], mask_id: int) -> Masked:
    return Masked(ids=[mask_id if place in places else token for place, token in enumerate(ids)], places=sorted(places))


def _each_by_itself(ids: Sequence[int], own: list[int], more: set[int], mask_id: int) -> Iterator[Masked]:
    if own:
        yield Masked(ids=list(ids), places=own)
    for place in sorted(more):
        yield Masked(ids=[*ids[:place], mask_id, *ids[place + 1 :]], places=[place])
