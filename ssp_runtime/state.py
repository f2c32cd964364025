"""What a layer remembers of a sequence: named tensors of fixed size, declared before they exist."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["accumulator", "activation", "index"]

State = dict[str, Tensor]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a state.

    `shape` is without the batch dimension. An accumulator is float32 (float64 in float64 models), an activation has
    the activations' dtype, an index is int64. `init` is every element's value before the first token.
    """

    shape: tuple[int, ...]
    kind: Kind
    init: float = 0.0

    def dtype(self, activations: torch.dtype) -> torch.dtype:
        if self.kind == "index":
            return torch.int64
        if self.kind == "accumulator" and activations != torch.float64:
            return torch.float32
        return activations

    def initial(self, batch: int, activations: torch.dtype, device: torch.device) -> Tensor:
        return torch.full((batch, *self.shape), self.init, dtype=self.dtype(activations), device=device)

    def num_bytes(self, activations: torch.dtype) -> int:
        return math.prod(self.shape) * self.dtype(activations).itemsize


StateSpec = Mapping[str, TensorSpec]


def initial_state(spec: StateSpec, batch: int, activations: torch.dtype, device: torch.device) -> State:
    """The state of `batch` sequences before their first token."""
    return {name: tensor.initial(batch, activations, device) for name, tensor in spec.items()}


def num_bytes(spec: StateSpec, activations: torch.dtype) -> int:
    """Bytes of one sequence's state."""
    return sum(tensor.num_bytes(activations) for tensor in spec.values())


def prefixed(mapping: Mapping[str, "TensorSpec"], prefix: str) -> dict[str, "TensorSpec"]:
    return {prefix + name: spec for name, spec in mapping.items()}
