"""`ssp-model train`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from ssp_runtime.formats import artifact
from ssp_runtime.formats.artifact import Description
from ssp_runtime.mixers.base import Positive, Probability, validated
from ssp_runtime.models.architectures import model_config, regressor_config
from ssp_runtime.models.model import build_model
from ssp_runtime.tokenizers import ByteTokenizer, DNATokenizer
from ssp_runtime.training.data import read_labelled, read_texts
from ssp_runtime.training.loop import LoopConfig, Report
from ssp_runtime.training.loop import train as run
from ssp_runtime.training.regression import Regression
from ssp_runtime.training.series import read_series
from ssp_runtime.training.tasks import Classification, NextToken, Task


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is trained."""

    architecture: str = "mamba"
    """Name of a row in docs/models.md; the bidirectional ones can only classify."""
    d_model: Positive = 128
    num_layers: Positive = 4
    dropout: Probability = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains a model and writes it as a folder that `convert` takes; interrupted, it goes on where it was.

    Example: ssp-model train --data book.txt --out runs/book
    """

    data: tuple[Path, ...]
    """Text files (next-token), one file of lines "label TAB sequence" (classification), or tables of numbers, .npy or
    CSV, a row a step (regression)."""
    out: Path
    """Folder to write; its checkpoint is taken up again if there is one."""
    task: Literal["next-token", "classification", "regression"] = "next-token"
    tokenizer: Literal["bytes", "dna"] = "bytes"
    """Of text; regression has none."""
    targets: tuple[str, ...] = ()
    """Columns, by name or counted from 0, to tell from the others at each step; without them the next row
    (regression)."""
    heldout_fraction: Probability = 0.05
    batch_size: Positive = 16
    sequence_length: Positive = 256
    """Tokens or vectors of a row in one step (next-token, regression)."""
    resets: bool = False
    """Start each text from the initial state, not from that of the text before (next-token)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    threads: Positive = 2
    description: str = ""
    shape: Shape = field(default_factory=Shape)
    loop: LoopConfig = field(default_factory=LoopConfig)


def train(config: TrainConfig) -> None:
    """Trains a model and writes it as a folder that `convert` takes; interrupted, it goes on where it was."""
    config = validated(TrainConfig, asdict(config))
    if not config.data:
        raise ValueError("name the training data with --data")
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    task, description = _TASKS[config.task](config)
    model = build_model(description.model)
    report = run(model, task, config.loop, config.out / "checkpoint.pt")
    task.finish(model)
    artifact.save(config.out, model, replace(description, description=config.description, training=summary(report)))
    print(f"held-out {report.score.name}: {report.score.value:.4f}; written to {config.out}")


def summary(report: Report) -> dict[str, object]:
    """What an artifact records of its training."""
    return {
        "heldout": {report.score.name: round(report.score.value, 4)},
        "steps": report.steps,
        "tokens": report.tokens,
        "minutes": round(report.seconds / 60, 1),
        "torch": str(torch.__version__),
    }


def _next_token(config: TrainConfig) -> tuple[Task, Description]:
    tokenizer = _tokenizer(config)
    stream, heldout = read_texts(config.data, tokenizer, config.heldout_fraction)
    bos = tokenizer.bos_id if tokenizer.bos_id is not None else 0
    sizes = {"batch_size": config.batch_size, "length": config.sequence_length}
    task = NextToken(stream, heldout, **sizes, bos_id=bos, resets=config.resets)
    model = model_config(**vars(config.shape), vocab_size=tokenizer.vocab_size)
    return task, Description(model=model, tokenizer=tokenizer)


def _classification(config: TrainConfig) -> tuple[Task, Description]:
    if len(config.data) != 1:
        raise ValueError("classification takes one --data file")
    tokenizer = _tokenizer(config)
    data = read_labelled(config.data[0], tokenizer, config.heldout_fraction)
    task = Classification(data.train, data.heldout, batch_size=config.batch_size, seed=config.seed)
    model = model_config(**vars(config.shape), vocab_size=tokenizer.vocab_size, num_classes=len(data.labels))
    return task, Description(model=model, tokenizer=tokenizer, labels=data.labels)


def _regression(config: TrainConfig) -> tuple[Task, Description]:
    series = read_series(config.data, config.targets)
    sizes = {"batch_size": config.batch_size, "length": config.sequence_length}
    task = Regression(series, heldout_fraction=config.heldout_fraction, **sizes)
    model = regressor_config(**vars(config.shape), d_input=series[0].d_input, d_output=series[0].d_output)
    return task, Description(model=model)


_TASKS: dict[str, Callable[[TrainConfig], tuple[Task, Description]]] = {
    "next-token": _next_token,
    "classification": _classification,
    "regression": _regression,
}


def _tokenizer(config: TrainConfig) -> ByteTokenizer | DNATokenizer:
    return ByteTokenizer() if config.tokenizer == "bytes" else DNATokenizer()
