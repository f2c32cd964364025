"""`ssp-model`: models from training to what the server loads."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from ssp_runtime.commands.convert import convert
from ssp_runtime.commands.export_onnx import export_onnx
from ssp_runtime.commands.inspect import inspect
from ssp_runtime.commands.train import TrainConfig, train
from ssp_runtime.commands.verify import verify
from ssp_runtime.errors import SSPError

_COMMANDS: dict[str, Callable[..., Any]] = {
    "train": TrainConfig,
    "convert": convert,
    "inspect": inspect,
    "verify": verify,
    "export-onnx": export_onnx,
}


def main() -> None:
    try:
        result = tyro.extras.subcommand_cli_from_dict(_COMMANDS, prog="ssp-model", config=(tyro.conf.OmitArgPrefixes,))
        if isinstance(result, TrainConfig):
            train(result)
    except (SSPError, ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
