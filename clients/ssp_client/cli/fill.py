"""`ssp fill`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

import tyro
from tyro.conf import Positional

from ssp_client.cli.connection import ModelName, OptionalInt, Server
from ssp_client.cli.output import table
from ssp_client.types import Candidate, FilledPlace, Filling


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Tell what may stand at the masked places of sequences.

    examples:
      ssp fill "ACGT[MASK]ACG"
      ssp fill ACGTTACG --positions 3 4 --separately --json
    """

    texts: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="TEXT [TEXT ...]")]
    """The sequences, with masks as the model's vocabulary spells them."""
    positions: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT ...", help_behavior_hint="")] = ()
    """Places of each sequence to be masked as well, counted in tokens from 0."""
    top: OptionalInt = None
    """How many of the likeliest tokens to tell at each place."""
    separately: bool = False
    """Mask the positions one at a time."""
    model: ModelName = ""
    """The model; may be left out if the server has one that fills in masked tokens."""
    json: bool = False
    """Print JSON, a line for each sequence."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints a row for each place, or a line of JSON for each sequence."""
        positions = [self.positions] * len(self.texts)
        with self.server.client() as client:
            filled = client.fill(self.texts, positions, model=self.model, top=self.top, separately=self.separately)
        if self.json:
            for one in filled:
                print(json.dumps(asdict(one), ensure_ascii=False))
        else:
            print(_table(filled))
        return 0


def _table(filled: Sequence[Filling]) -> str:
    rows = [row for number, one in enumerate(filled) for row in _rows(number, one)]
    return table(("SEQUENCE", "POSITION", "GIVEN", "LOG P", "LIKELIEST"), rows, right=(0, 1, 3))


def _rows(number: int, filling: Filling) -> Iterator[tuple[object, ...]]:
    for place in filling.places:
        likeliest = "  ".join(f"{_name(each)} {math.exp(each.logprob):.4f}" for each in place.candidates)
        yield number, place.position, *_given(place), likeliest


def _given(place: FilledPlace) -> tuple[str, str]:
    return ("-", "-") if place.given is None else (_name(place.given), f"{place.given.logprob:.3f}")


def _name(candidate: Candidate) -> str:
    """A token that is no text goes by its id."""
    return candidate.text if candidate.text.isprintable() and candidate.text.strip() else f"#{candidate.token_id}"
