"""`ssp-model convert`."""

from pathlib import Path
from typing import Annotated

import tyro

from ssp_runtime.commands.inspect import inspect
from ssp_runtime.formats import artifact


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
) -> None:
    """Converts a trained model to recurrent form: the folder that `ssp-server serve` loads.

    Args:
        source: folder of the trained model.
        target: folder to write.
    """
    artifact.convert(artifact.load(source), target)
    inspect(target)
