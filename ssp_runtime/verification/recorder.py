"""What each layer of a model brings, seen from beside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ssp_runtime.models.model import LanguageModel


@contextmanager
def recorded(model: LanguageModel) -> Iterator[list[Tensor]]:
    """While this lasts, the outputs of its layers in the order they come."""
    seen: list[Tensor] = []
    layers: list[Any] = list(model.backbone.layers)
    for layer in layers:
        layer.compute = _recording(layer.compute, seen)
    try:
        yield seen
    finally:
        for layer in layers:
            del layer.compute


def _recording(compute: Callable[..., Tensor], seen: list[Tensor]) -> Callable[..., Tensor]:
    def recording(*arguments: Any) -> Tensor:
        y = compute(*arguments)
        seen.append(y.clone())
        return y

    return recording
