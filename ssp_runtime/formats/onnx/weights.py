"""Weights beside their graphs: in one file, each once, however many graphs have it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import onnx_ir

WEIGHTS_FILE = "weights.bin"
_SMALL = 1024  # bytes; a tensor below that stays in the graph


def share_weights(models: Iterable[onnx_ir.Model], folder: Path) -> None:
    """Moves large tensors to the folder's file."""
    places = [
        (value, tensor)
        for model in models
        for value in model.graph.initializers.values()
        if (tensor := value.const_value) is not None and tensor.nbytes >= _SMALL
    ]
    keys = [f"{value.name} {hashlib.sha256(tensor.tobytes()).hexdigest()}" for value, tensor in places]
    unique = dict(zip(keys, (tensor for _, tensor in places), strict=True))
    moved = onnx_ir.external_data.convert_tensors_to_external(list(unique.values()), folder, WEIGHTS_FILE)
    external = dict(zip(unique, moved, strict=True))
    for key, (value, _) in zip(keys, places, strict=True):
        value.const_value = external[key]
