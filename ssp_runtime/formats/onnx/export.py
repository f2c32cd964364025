"""Writes a model as a folder of ONNX graphs: `step.onnx` and `prefill.onnx`, or one that reads whole sequences; with
their weights, which they share, in `weights.bin`, and the tokenizer's files."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir
import torch

from ssp_kernels import registry
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.formats.onnx.graphs import Graph, graphs_of
from ssp_runtime.formats.onnx.metadata import metadata
from ssp_runtime.formats.onnx.scan import scanned
from ssp_runtime.formats.onnx.weights import share_weights
from ssp_runtime.models.model import CausalModel
from ssp_runtime.run import advancing_by

OPSETS = range(18, 24)


def export(artifact: Artifact, name: str, folder: Path, *, piece: int | None = None, opset: int = 20) -> list[Path]:
    """Writes the graphs of a model in recurrent form, in float32, and checks them; returns where they are.

    `piece` is the length of what prefill takes, None: any.

    Raises:
        InvalidRequest: there is no such opset or piece, or a part of the model has no form in ONNX.
    """
    _check(artifact, piece, opset)
    artifact.model.float()
    models = {graph.name: _traced(graph, artifact, opset) for graph in graphs_of(artifact.model, piece)}
    for graph, model in models.items():
        model.metadata_props.update(metadata(artifact, name, graph))
    folder.mkdir(parents=True, exist_ok=True)
    share_weights(models.values(), folder)
    tokenizer = artifact.description.tokenizer
    for file, contents in ({} if tokenizer is None else tokenizer.files).items():
        (folder / file).write_bytes(contents)
    return [_written(model, folder / f"{graph}.onnx") for graph, model in models.items()]


def _check(artifact: Artifact, piece: int | None, opset: int) -> None:
    if opset not in OPSETS:
        raise InvalidRequest(f"the opset is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    if piece is not None and piece < 1:
        raise InvalidRequest(f"a piece has at least 1 token, not {piece}")
    if piece is not None and not isinstance(artifact.model, CausalModel):
        raise InvalidRequest("this model reads whole sequences, of any length; leave --piece out")


def _traced(graph: Graph, artifact: Artifact, opset: int) -> onnx_ir.Model:
    """Operators are traced in their reference form: compiled ones are opaque."""
    try:
        with registry.chosen("reference"), advancing_by(scanned), torch.no_grad(), _quiet():
            program = torch.onnx.export(
                graph.module,
                tuple(graph.inputs.values()),
                input_names=list(graph.inputs),
                output_names=graph.outputs,
                dynamic_shapes=(tuple(graph.axes.values()),),
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        architecture = artifact.description.model.architecture
        raise InvalidRequest(f"the {graph.name} of {architecture} has no form in ONNX: {_reason(error)}") from error
    assert program is not None
    onnx_ir.passes.common.RemoveUnusedNodesPass()(program.model)
    return program.model


def _written(model: onnx_ir.Model, path: Path) -> Path:
    onnx_ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)  # with shape inference
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch tells its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of what started it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]
