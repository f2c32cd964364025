"""What the parts of this format hand each other: a layer of ours, and its tensors as made of theirs."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.bidirectional import BidirectionalConfig, TwoSidedConfig

Tensors = Mapping[str, Tensor]


class Layer(NamedTuple):
    """One of our layers. `tensors` gives its own, by our names within it, for those of the checkpoint by their names
    within theirs, which is `layers.<i>.mixer` in a `MambaModel` and `layers.<i>` in an `S4ClassicModel`.

    A name that it does not know it hands on, for the model to refuse.
    """

    config: MixerConfig
    tensors: Callable[[Tensors], dict[str, Tensor]]

    @property
    def is_causal(self) -> bool:
        return not isinstance(self.config, BidirectionalConfig | TwoSidedConfig)


def under(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def divided(tensors: Tensors, *prefixes: str) -> list[dict[str, Tensor]]:
    """Each under the first prefix that fits, named without it; last come those that none fits."""
    prefixes = (*prefixes, "")
    parts = [dict[str, Tensor]() for _ in prefixes]
    for name, tensor in tensors.items():
        i = next(i for i, prefix in enumerate(prefixes) if name.startswith(prefix))
        parts[i][name.removeprefix(prefixes[i])] = tensor
    return parts


def branches(forward: Tensors, backward: Tensors) -> dict[str, Tensor]:
    return under("forward_branch.", forward) | under("backward_branch.", backward)
