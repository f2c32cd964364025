"""`ssp-model verify`."""

import math
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.commands.table import render
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.formats.artifact import Artifact, load
from ssp_runtime.models.model import LanguageModel

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 2e-2, torch.float16: 2e-2}
_BUCKETS = 4


def verify(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    text: Path,
    tokens: int = 4096,
    piece: int = 1000,
) -> None:
    """Compares a model's parallel and recurrent forms on real text, and tells where they part. Exits with 1 if they do.

    Args:
        folder: the model folder.
        text: a text file to run both on.
        tokens: how many of its tokens.
        piece: cut the parallel run into pieces of this many tokens, the state handed on.
    """
    if tokens < 2 or piece < 1:
        raise InvalidRequest(f"--tokens is at least 2 and --piece at least 1; {tokens} and {piece} are given")
    artifact = load(folder)
    ids = _tokens(artifact, text, tokens)
    comparison = compare(artifact.language_model, ids, piece)
    tolerance = _TOLERANCE[next(artifact.model.parameters()).dtype]
    print(
        render(comparison.rows(), ("tokens", "max |difference|", "top-1 agreement", "bits parallel", "bits recurrent"))
    )
    worst = comparison.difference.max().item()
    print(f"\nlargest difference of logits {worst:.2e}, tolerance {tolerance:.0e}")
    if worst > tolerance:
        at = int((comparison.difference > tolerance).nonzero()[0])
        sys.exit(f"the two forms part at token {at}")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both forms on the same tokens; tensors have one value a token."""

    difference: Tensor
    agree: Tensor
    parallel_bits: Tensor
    recurrent_bits: Tensor

    def rows(self) -> list[tuple[object, ...]]:
        """By quarters of the text, then the whole."""
        length = len(self.difference)
        edges = [length * i // _BUCKETS for i in range(_BUCKETS + 1)]
        parts = [slice(a, b) for a, b in pairwise(edges) if b > a]
        return [self._row(part) for part in [*parts, slice(0, length)]]

    def _row(self, part: slice) -> tuple[object, ...]:
        values = (self.agree, self.parallel_bits, self.recurrent_bits)
        means = (float(value[part].double().mean()) for value in values)
        return f"{part.start} to {part.stop - 1}", float(self.difference[part].max()), *means


@torch.inference_mode()
def compare(model: LanguageModel, ids: list[int], piece: int) -> Comparison:
    """Runs `forward` in pieces and folds `step` over the same tokens."""
    inputs, targets = torch.tensor([ids[:-1]]), torch.tensor(ids[1:])
    state, parts = model.initial_state(1), []
    for start in range(0, inputs.shape[1], piece):
        logits, state = model(inputs[:, start : start + piece], state)
        parts.append(logits[0])
    parallel = torch.cat(parts)
    state, rows = model.initial_state(1), []
    for t in range(inputs.shape[1]):
        logits, state = model.step(inputs[:, t], state, out=state)
        rows.append(logits[0].clone())
    recurrent = torch.stack(rows)
    return Comparison(
        difference=(parallel - recurrent).abs().amax(-1),
        agree=parallel.argmax(-1) == recurrent.argmax(-1),
        parallel_bits=F.cross_entropy(parallel, targets, reduction="none") / math.log(2),
        recurrent_bits=F.cross_entropy(recurrent, targets, reduction="none") / math.log(2),
    )


def _tokens(artifact: Artifact, path: Path, count: int) -> list[int]:
    tokenizer = artifact.description.tokenizer
    if tokenizer is None:
        raise InvalidRequest("this model takes numbers; verify needs one that takes text")
    ids = tokenizer.encode(path.read_text(encoding="utf-8"))[:count]
    if len(ids) < 2:
        raise InvalidRequest(f"{path} has too little text: at least two tokens are needed")
    return ids if tokenizer.bos_id is None else [tokenizer.bos_id, *ids]
