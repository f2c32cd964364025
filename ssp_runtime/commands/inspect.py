"""`ssp-model inspect`."""

from typing import Annotated

import tyro
from torch import nn

from ssp_runtime.commands.table import render
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.formats.open import read_model
from ssp_runtime.mixers.base import Mixer
from ssp_runtime.models.model import CausalModel, SequenceRegressor
from ssp_runtime.state import num_bytes


def inspect(source: Annotated[str, tyro.conf.Positional]) -> None:
    """Shows what a model holds: layers, parameters, bytes of state, form.

    Args:
        source: the model: a folder, a file of another program, or OWNER/NAME on the Hugging Face hub.
    """
    artifact = read_model(source, pickles=True)
    print(render(_summary(source, artifact)))
    print()
    rows = [_layer(i, layer, artifact) for i, layer in enumerate(artifact.model.backbone.layers)]
    print(render(rows, ("layer", "kind", "parameters", "state bytes", "state")))


def _summary(source: str, artifact: Artifact) -> list[tuple[str, object]]:
    description, model = artifact.description, artifact.model
    dtype = next(model.parameters()).dtype
    rows: list[tuple[str, object]] = [
        ("model", source),
        ("description", description.description or "-"),
        ("architecture", description.model.architecture),
        ("form", description.form),
        ("head", description.model.head.kind),
        ("tokenizer", description.tokenizer.kind if description.tokenizer else "none (numbers)"),
        ("parameters", f"{artifact.num_parameters:,} {str(dtype).removeprefix('torch.')}"),
        ("fingerprint", artifact.fingerprint),
    ]
    if description.labels:
        rows.append(("labels", ", ".join(description.labels)))
    if isinstance(model, SequenceRegressor):
        rows.append(("numbers", f"{model.d_input} in, {model.d_output} out at every step"))
    if isinstance(model, CausalModel):
        rows.append(("state of a session", f"{num_bytes(model.state_spec, dtype):,} bytes, at any position"))
    return rows


def _layer(i: int, layer: nn.Module, artifact: Artifact) -> tuple[object, ...]:
    dtype = next(artifact.model.parameters()).dtype
    block = artifact.description.model.layers[i]
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    if not isinstance(layer, Mixer):
        return i, block.mixer.kind, parameters, 0, "none: needs the whole sequence"
    shapes = ", ".join(f"{name} {spec.shape}" for name, spec in layer.state_spec.items())
    return i, block.mixer.kind, parameters, num_bytes(layer.state_spec, dtype), shapes
