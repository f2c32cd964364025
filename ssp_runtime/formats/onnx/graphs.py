"""What is traced: a fold's step and its parallel form, or a model of whole sequences; with named tensors in and out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssp_runtime.models.config import EmbeddingConfig, ModelConfig, NumberEmbeddingConfig
from ssp_runtime.models.model import CausalModel, Classifier, LanguageModel, MaskedLanguageModel, Model
from ssp_runtime.state import State

_BATCH, _LENGTH = 3, 5  # of the example; any that differ, since 0 and 1 could be mistaken for sizes that never change
NEW = "new."  # before the name of a state that comes out


@dataclass(frozen=True)
class Graph:
    """A function of tensors, with names and examples of what goes in. `axes` names the dimensions of each that may
    change from call to call."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    outputs: list[str]


def graphs_of(model: Model, piece: int | None) -> Iterator[Graph]:
    """Step and prefill of a model that is a fold, the latter for pieces of that many tokens, None: any number; or the
    one graph of a model that reads whole sequences."""
    if isinstance(model, CausalModel):
        yield _step(model)
        yield _prefill(model, piece)
    else:
        yield _whole(model)


def _step(model: CausalModel) -> Graph:
    def step(inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, new = model.step(inputs, dict(zip(model.state_spec, state, strict=True)))
        return y, *(new[name] for name in model.state_spec)

    state = model.initial_state(_BATCH)
    inputs = {name: tensor[:, 0] for name, tensor in _inputs(model.config, 1).items() if name != "lengths"} | state
    return Graph("step", _Traced(model, step), inputs, {name: {0: "batch"} for name in inputs}, _outputs(model))


def _prefill(model: CausalModel, piece: int | None) -> Graph:
    def prefill(inputs: Tensor, lengths_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, new = model(inputs, dict(zip(model.state_spec, state, strict=True)), lengths_B=lengths_B)
        return y, *(new[name] for name in model.state_spec)

    inputs = _inputs(model.config, piece or _LENGTH) | model.initial_state(_BATCH)
    axes = {name: _axes(name, piece) for name in inputs}
    return Graph("prefill", _Traced(model, prefill), inputs, axes, _outputs(model))


def _whole(model: Classifier | MaskedLanguageModel) -> Graph:
    name = "classifier" if isinstance(model, Classifier) else "masked_language_model"
    inputs = _inputs(model.config, _LENGTH)
    return Graph(name, _Traced(model), inputs, {name: _axes(name, None) for name in inputs}, ["logits"])


class _Traced(nn.Module):
    """A function of a model as a module, which holds its weights."""

    def __init__(self, model: nn.Module, function: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.model = model
        self._function = function or model

    def forward(self, *tensors: Tensor) -> Any:
        return self._function(*tensors)


def _inputs(config: ModelConfig, length: int) -> State:
    inputs = _example(config.embedding, length)
    name = "tokens" if inputs.ndim == 2 else "inputs"
    return {name: inputs, "lengths": torch.full((_BATCH,), length)}


def _example(embedding: EmbeddingConfig, length: int) -> Tensor:
    if isinstance(embedding, NumberEmbeddingConfig):
        return torch.zeros(_BATCH, length, embedding.d_input)
    return torch.zeros(_BATCH, length, dtype=torch.int64)


def _axes(name: str, piece: int | None) -> dict[int, str]:
    is_sequence = name in {"tokens", "inputs"} and piece is None
    return {0: "batch", 1: "length"} if is_sequence else {0: "batch"}


def _outputs(model: CausalModel) -> list[str]:
    return ["logits" if isinstance(model, LanguageModel) else "values", *(NEW + name for name in model.state_spec)]
