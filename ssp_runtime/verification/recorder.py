"""What each layer of a model brings, seen from beside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ssp_runtime.models.model import LanguageModel, WholeSequenceModel


@contextmanager
def recorded(model: LanguageModel | WholeSequenceModel) -> Iterator[list[Tensor]]:
    """While this lasts, the outputs of its layers in the order they come."""
    seen: list[Tensor] = []
    layers: list[Any] = list(model.backbone.layers)
    method = "compute" if isinstance(model, LanguageModel) else "encode"
    for layer in layers:
        setattr(layer, method, _recording(getattr(layer, method), seen))
    try:
        yield seen
    finally:
        for layer in layers:
            delattr(layer, method)


def _recording(compute: Callable[..., Tensor], seen: list[Tensor]) -> Callable[..., Tensor]:
    def recording(*arguments: Any) -> Tensor:
        y = compute(*arguments)
        seen.append(y.clone())
        return y

    return recording
