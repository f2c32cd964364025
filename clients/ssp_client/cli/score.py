"""`ssp score`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from tyro.conf import Positional

from ssp_client.cli.connection import ModelName, Server
from ssp_client.cli.output import table
from ssp_client.types import Score as Scored


@dataclass(frozen=True, kw_only=True)
class Score:
    """Tell how likely a model finds texts, each from its beginning.

    examples:
      ssp score "import os" "improt os"
    """

    texts: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="TEXT [TEXT ...]")]
    """The texts."""
    model: ModelName = ""
    """The model; may be left out if the server has one that generates."""
    server: Server = field(default_factory=Server)

    def run(self) -> int:
        """Prints their log-probabilities, the likeliest first."""
        with self.server.client() as client:
            print(scores_table(self.texts, client.score(self.texts, model=self.model)))
        return 0


def scores_table(texts: Sequence[str], scores: Sequence[Scored]) -> str:
    """The likeliest first: the logarithm of its probability, bits a token, and the text."""
    ordered = sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1].total)
    rows = [(f"{score.total:.3f}", f"{_bits(score):.3f}", repr(text)) for text, score in ordered]
    return table(("LOG P", "BITS/TOKEN", "TEXT"), rows, right=(0, 1))


def _bits(score: Scored) -> float:
    return -score.total / math.log(2) / max(1, len(score.logprobs))
