"""Whether a state is sound, and how large it is."""

import math
from dataclasses import dataclass

from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import StateCorrupt
from ssp_runtime.state import State, StateSpec


@dataclass(frozen=True, kw_only=True)
class Health:
    """`norm` is the Euclidean norm of all floating numbers of the state; `largest` the largest magnitude, in the
    tensor of that name. Numbers that still have an initial value other than 0, such as -1e38, are left out."""

    norm: float
    largest: float
    largest_in: str


def check(state: State, spec: StateSpec) -> Health:
    """Raises `StateCorrupt` for NaN, or infinite values where the initial state has none."""
    squares, largest, largest_in = 0.0, 0.0, ""
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        values = (tensor[tensor != spec[name].init] if spec[name].init else tensor).double()
        size = float(values.abs().max()) if values.numel() else 0.0
        if not math.isfinite(size):
            raise StateCorrupt(f"the state of this session holds NaN or infinite values, in {name}")
        squares += float(values.square().sum())
        if size > largest:
            largest, largest_in = size, name
    return Health(norm=math.sqrt(squares), largest=largest, largest_in=largest_in)


def of(copy: Sequence, generator: Generator) -> Health | None:
    """Of a detached sequence; None if its state is lost or holds what `check` refuses."""
    try:
        return None if copy.broken else check(generator.engine.pool.tensors(copy.spilled), generator.state_spec)
    except StateCorrupt:
        return None
