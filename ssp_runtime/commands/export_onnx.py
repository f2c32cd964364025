"""`ssp-model export-onnx`."""

from pathlib import Path
from typing import Annotated

import tyro

from ssp_runtime.commands.table import render
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.formats.open import open_model


def export_onnx(
    source: Annotated[str, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    *,
    piece: int | None = None,
    opset: int = 20,
) -> None:
    """Writes a model as ONNX graphs, which onnxruntime runs without this program: step.onnx and prefill.onnx, or
    one for whole sequences, such as classifier.onnx (see docs/onnx.md).

    Args:
        source: the model: a folder, or OWNER/NAME on the Hugging Face hub.
        target: folder to write.
        piece: tokens that prefill takes at a time; without it, any number.
        opset: version of ONNX's operators.
    """
    try:
        from ssp_runtime.formats.onnx.export import export
    except ImportError as error:
        raise InvalidRequest("to write ONNX, install the extra 'onnx': pip install 'ssp[onnx]'") from error
    written = export(open_model(source), Path(source).name, target, piece=piece, opset=opset)
    print(render([(str(path), path.stat().st_size) for path in written], ("graph", "bytes")))
