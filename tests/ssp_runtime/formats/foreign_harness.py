"""Checkpoints of other programs, and what is asked of a model that was made of one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.models.model import LanguageModel
from tests import oracles
from tests.greedy import Greedy
from tests.ssp_runtime.laws import folded_step

TOLERANCE = 1e-4
FORMS = ("parallel", "recurrent")
CONFIG, WEIGHTS = "config.json", "model.safetensors"

Tensors = dict[str, Tensor]
Change = Callable[[dict[str, Any]], object]
Forward = Callable[[Tensor], Tensor]  # another program's logits (B, L, V) of whole sequences (B, L)


@torch.no_grad()
def moved(model: Any, seed: int = 3) -> Any:
    """With every parameter off its initial value, which hides mistakes where 0 or 1, and in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def full_forward(model: nn.Module) -> Forward:
    """Of a `transformers` model: where it continues a cache it is no oracle."""
    return lambda ids: torch.as_tensor(model(ids, use_cache=False).logits)


@torch.no_grad()
def difference(ours: LanguageModel, theirs: Forward, form: str) -> float:
    """The largest one of any logit, over sequences longer than any window or chunk of theirs."""
    vocab_size = ours.lm_head.out_features
    ids = torch.randint(vocab_size, (2, 37), generator=torch.Generator().manual_seed(1))
    if form == "parallel":
        logits, _ = ours(ids, ours.initial_state(2))
    else:
        to_recurrent(ours)
        logits, _ = folded_step(ours, ids, ours.initial_state(2))
    return oracles.difference(logits, theirs(ids))


@torch.no_grad()
def check_greedy(ours: LanguageModel, theirs: Forward, count: int = 50) -> None:
    """Tokens step by step in recurrent form, against theirs, each of a forward over all before it."""
    to_recurrent(ours)
    prompt = [1, 2, 3]
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(theirs(torch.tensor([tokens]))[0, -1].argmax()))
    assert len(set(tokens)) > 5, "the same few tokens again and again prove nothing"
    assert Greedy(ours).check(tokens[len(prompt) :], prompt)


def _not(_: dict[str, Any]) -> None:
    pass


def changed(source: Path, target: Path, *, config: Change = _not, tensors: Change = _not) -> Path:
    """A copy of a folder with its settings or its tensors changed."""
    shutil.copytree(source, target)
    settings = json.loads((target / CONFIG).read_text(encoding="utf-8"))
    config(settings)
    (target / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    weights = load_file(target / WEIGHTS)
    tensors(weights)
    save_file(weights, target / WEIGHTS)
    return target


# What may be wrong with the tensors of a checkpoint, and what is said of it.
DAMAGES: dict[str, tuple[Callable[[Tensors, str], object], str]] = {
    "missing": (lambda tensors, name: tensors.pop(name), "lacks the tensor {}; the download"),
    "extra": (lambda tensors, name: tensors.update({f"{name}2": tensors[name].clone()}), "holds the tensor {}2, which"),
    "misshapen": (lambda tensors, name: tensors.update({name: tensors[name][:-1].clone()}), "{}: .* is wanted"),
    "not finite": (lambda tensors, name: tensors[name].view(-1)[-1].fill_(torch.nan), "{} holds NaN"),
    "of integers": (lambda tensors, name: tensors.update({name: tensors[name].int()}), "{} is of torch.int32"),
}
