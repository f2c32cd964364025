"""What another program calls our tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ssp_runtime.errors import ArtifactError

_LAYER = re.compile(r"backbone\.layers\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class Names:
    """Tables of prefixes, ours to theirs; the first that fits counts.

    `inside` has one table for each layer of ours that one block of theirs is made of, in order, or, where these differ,
    that `blocks` of them are. Block n's names begin with `block`, its number in place of the braces.
    """

    outside: Mapping[str, str]
    block: str
    inside: tuple[Mapping[str, str], ...]
    blocks: int = 1

    def theirs(self, name: str) -> str:
        match = _LAYER.match(name)
        if match is None:
            return _renamed(name, self.outside)
        layer, period = int(match[1]), len(self.inside)
        block = self.block.format(layer * self.blocks // period)
        return block + _renamed(name.removeprefix(match[0]), self.inside[layer % period])


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for prefix, theirs in table.items():
        if name.startswith(prefix):
            return theirs + name.removeprefix(prefix)
    raise ArtifactError(f"this format has no name for {name}")
