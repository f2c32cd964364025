"""What a graph says of itself, as ONNX metadata."""

import json
import math
from typing import Any

import torch

from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.models.model import CausalModel
from ssp_runtime.state import TensorSpec


def metadata(artifact: Artifact, name: str, graph: str) -> dict[str, str]:
    """`ssp.model`, `ssp.fingerprint` and `ssp.graph` are plain text; the others JSON. `ssp.state` is an object of the
    state's tensors: shape without the batch, dtype, kind, and the initial value of every element; `ssp.tokenizer` is
    that of the model's folder, or null; `ssp.labels` names a classifier's classes, in order."""
    description, model = artifact.description, artifact.model
    spec = model.state_spec if isinstance(model, CausalModel) else {}
    tokenizer = None if description.tokenizer is None else description.tokenizer.to_json()
    return {
        "ssp.model": name,
        "ssp.fingerprint": artifact.fingerprint,
        "ssp.graph": graph,
        "ssp.state": json.dumps({name: _tensor(tensor) for name, tensor in spec.items()}),
        "ssp.tokenizer": json.dumps(tokenizer),
        "ssp.labels": json.dumps(description.labels),
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    dtype = str(spec.dtype(torch.float32)).removeprefix("torch.")
    init = spec.init if math.isfinite(spec.init) else str(spec.init)  # JSON has no infinity: "-inf"
    return {"shape": spec.shape, "dtype": dtype, "kind": spec.kind, "init": init}
