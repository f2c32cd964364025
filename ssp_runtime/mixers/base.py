"""What a layer is: `SequenceLayer` maps whole sequences; a `Mixer` is one that is also a `Fold`, token by token.

Shape suffixes: B batch, L length, D features (d_model, or d_inner within a block), N states of a feature.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Annotated, Any, Protocol, Self, TypeVar

import torch
from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from torch import Tensor, nn

from ssp_kernels.padding import masked
from ssp_runtime.run import ParallelRun, RecurrentRun, Run
from ssp_runtime.state import State, StateSpec, initial_state


class SequenceLayer(nn.Module, ABC):
    """Maps sequences (B, L, D) to sequences of the same shape."""

    @abstractmethod
    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        """Whole sequences at once. Tokens from `lengths_B` on are padding: they may be anything, even NaN, and
        change nothing; the outputs there are unspecified. For `beside` see `Run`."""


class Fold(nn.Module, ABC):
    """A function of tokens with a fixed-size state. Folding `step` over them equals `forward`, from any state."""

    state_spec: StateSpec

    @abstractmethod
    def compute(self, x: Tensor, run: Run) -> Tensor:
        """What both forms do. It acts on the last dimensions of x alone and leaves time to the operators it runs."""

    def forward(self, x: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        """Parallel form: outputs (B, L, ...) of inputs (B, L, ...), and the state after each row's last valid token.

        L may be 0. Tokens from `lengths_B` on are padding: they may be anything, even NaN, and change nothing; the
        outputs there are unspecified.
        """
        run = ParallelRun(state, lengths_B)
        return self.compute(masked(x, lengths_B), run), run.new

    def step(self, x: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        """Recurrent form: one token of each row (B, ...).

        Pure without `out`. With it the new state is written there, and `out` may be `state` itself, views included.
        """
        run = RecurrentRun(state, out)
        return self.compute(x, run), run.new


class Mixer(Fold, SequenceLayer):
    """A causal layer."""

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        run = ParallelRun(self.initial_state(x_BLD.shape[0], like=x_BLD), lengths_B, beside)
        return self.compute(masked(x_BLD, lengths_B), run)

    def initial_state(self, batch: int, *, like: Tensor) -> State:
        """The state before the first token, on the device and for the activations' dtype of `like`."""
        return initial_state(self.state_spec, batch, like.dtype, like.device)


class Coefficients(nn.Module, ABC):
    """Parameters of a state space, and the coefficients that the recurrence takes, which depend on nothing else.

    Conversion to recurrent form evaluates each of these once (see `ssp_runtime.formats.convert`). In training they are
    the SSP parameters, which learn slower than the rest and do not decay (as in the thesis). They are never narrower
    than float32, whatever the model's weights are: a decay of 0.999 is 1 in bfloat16, and a state would never fade.
    """

    @abstractmethod
    def forward(self) -> tuple[Tensor, ...]: ...

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def wide(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return tensor.to(changed.device, torch.promote_types(changed.dtype, torch.float32))

        super()._apply(wide, recurse)  # type: ignore[no-untyped-call]  # torch's
        return self


class FixedCoefficients(Coefficients):
    """Coefficients that were evaluated: plain tensors in the order the mixer takes them."""

    def __init__(self, values: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.values = nn.ParameterList(nn.Parameter(value.detach().clone(), requires_grad=False) for value in values)

    def forward(self) -> tuple[Tensor, ...]:
        return tuple(self.values)


class MixerConfig(Protocol):
    """Frozen dataclass of a mixer's settings; `kind` is its name in the table `MIXERS`."""

    @property
    def kind(self) -> str: ...


T = TypeVar("T")
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
PositiveReal = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1)]


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)  # making one takes a millisecond


def validated(kind: type[T], values: Any) -> T:
    """A configuration of that class, of its fields' values. Those made in Python were not checked before.

    Raises:
        ValueError: names the field at fault.
    """
    try:
        checked: T = _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error
    return checked


def first_fault(error: ValidationError) -> str:
    """Where the first of its faults is, and what it is."""
    first = error.errors()[0]
    where, what = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _parse(value: Any) -> MixerConfig:
    from ssp_runtime.mixers import config_class

    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError(f"a layer is an object with a kind, not {value!r}")
    return validated(config_class(str(value["kind"])), value)


# A mixer's configuration where it is a field of another: read by its kind.
AnyMixerConfig = Annotated[MixerConfig, PlainValidator(_parse), PlainSerializer(asdict)]


def reversed_in_length(x_BLD: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Each row's valid tokens in reverse order, the padding still behind them. Its own inverse."""
    if lengths_B is None:
        return x_BLD.flip(1)
    t_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
    mirrored_BL = lengths_B[:, None] - 1 - t_L
    index_BL = torch.where(mirrored_BL >= 0, mirrored_BL, t_L)
    return x_BLD.gather(1, index_BL[..., None].expand_as(x_BLD))
