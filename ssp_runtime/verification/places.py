"""Where in a model two forms of it can part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ssp_runtime.models.config import ModelConfig
from ssp_runtime.verification.comparison import Difference, Differences

LOGITS = -1


@dataclass(frozen=True, kw_only=True)
class Place:
    """A layer, or the logits: the parallel form against the recurrent one, and against another program's."""

    HEADER: ClassVar = ("after", "largest number", "parallel - recurrent", "parallel - transformers")

    name: str
    forms: Difference
    peer: Difference | None

    def row(self) -> tuple[object, ...]:
        peer = "" if self.peer is None else f"{self.peer.largest:.2e}"
        return self.name, self.forms.scale, f"{self.forms.largest:.2e}", peer


def places(config: ModelConfig, comparison: Differences, peer: Mapping[int, Difference]) -> list[Place]:
    """In the order of computing; `peer` by number of layer, or `LOGITS`."""
    found = [
        Place(name=f"layer {i} ({block.mixer.kind})", forms=forms, peer=peer.get(i))
        for i, (block, forms) in enumerate(zip(config.layers, comparison.layers, strict=True))
    ]
    return [*found, Place(name="logits", forms=comparison.logits, peer=peer.get(LOGITS))]


def first_parted(found: Sequence[Place], tolerance: float, other: str = "the recurrent form") -> list[str]:
    """A sentence for each form whose logits part from the parallel one: where it begins."""
    forms = _first(other, [(place.name, place.forms) for place in found], tolerance)
    peer = _first("transformers", [(place.name, place.peer) for place in found if place.peer], tolerance)
    return [*forms, *peer]


def _first(what: str, named: Sequence[tuple[str, Difference]], tolerance: float) -> list[str]:
    if not named or named[-1][1].parts_at(tolerance) is None:
        return []
    name, at = next((name, at) for name, gap in named if (at := gap.parts_at(tolerance)) is not None)
    return [f"{what} parts from the parallel one after {name}, first at token {at}"]
