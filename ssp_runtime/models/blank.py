"""Models whose weights are about to come from elsewhere."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ssp_runtime.models.config import ModelConfig
from ssp_runtime.models.model import Model, build_model

_DRAWS = {nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_, Tensor.normal_, Tensor.uniform_}


def blank_model(config: ModelConfig) -> Model:
    """As `build_model`, but large tensors are not drawn: they hold whatever was in memory, and take none of it until
    they are written to."""
    with _Undrawn():
        return build_model(config)


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],  # torch's signature
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
