"""RecurrentGemma under DeepMind's names gives the numbers of `transformers`, whose window counts one token more."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Pickle
from ssp_runtime.formats.foreign import find_format
from ssp_runtime.formats.foreign.base import assemble
from ssp_runtime.formats.foreign.recurrent_gemma import recurrent_gemma
from ssp_runtime.models.model import LanguageModel
from tests.ssp_runtime.formats.foreign_harness import (
    DAMAGES,
    FORMS,
    TOLERANCE,
    Tensors,
    check_greedy,
    difference,
    full_forward,
    moved,
)

WINDOW, SOFT_CAP = 4, 3.0
NAMES = (
    ("model.embed_tokens.weight", "embedder.input_embedding"),
    ("model.final_norm.weight", "final_norm.scale"),
    (r"model\.layers\.", "blocks."),
    (r"norm\.weight", "norm.scale"),
    (r"temporal_block\.([qkv])_proj", r"attention_block.proj_\1"),
    (r"temporal_block\.o_proj", "attention_block.proj_final"),
    (r"temporal_block\.", "recurrent_block."),
    (r"conv_1d\.(.)\w+", r"conv_1d.\1"),
    (r"rg_lru\.recurrent_param", "rg_lru.a_param"),
    (r"recurrent_gate_(.)\w+", r"a_gate.\1"),
    (r"input_gate_(.)\w+", r"input_gate.\1"),
    (r"mlp_block\.down_proj", "mlp_block.ffw_down"),
)


@cache
def _theirs() -> Any:
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    torch.manual_seed(0)
    config = RecurrentGemmaConfig(
        num_hidden_layers=4,
        vocab_size=43,
        hidden_size=24,
        lru_width=30,
        intermediate_size=38,
        num_attention_heads=3,
        num_key_value_heads=1,
        conv1d_width=3,
        attention_window_size=WINDOW + 1,
        logits_soft_cap=SOFT_CAP,
    )
    return moved(RecurrentGemmaForCausalLM(config), seed=6)


def _published(origin: str) -> Tensors:
    """Its tensors as DeepMind's code has them, from torch or from Flax."""
    state_dict: Tensors = _theirs().state_dict()
    tensors = {_renamed(name): tensor for name, tensor in state_dict.items() if name != "lm_head.weight"}
    for name in [name for name in tensors if "gate_proj" in name]:
        pair = torch.stack([tensors.pop(name), tensors.pop(name.replace("gate", "up"))])
        tensors[name.replace("gate_proj.weight", "ffw_up.w").replace("gate_proj.bias", "ffw_up.b")] = (
            pair.mT if pair.ndim == 3 else pair[:, None, None]
        )
    tensors = {name: tensor[:, 0].mT if name.endswith("conv_1d.w") else tensor for name, tensor in tensors.items()}
    if origin == "flax":
        tensors = dict(_in_flax(name, tensor) for name, tensor in tensors.items())
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _in_flax(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name.endswith(".weight"):
        name, tensor = f"{name.removesuffix('weight')}kernel", tensor.mT
    return f"params.{name}", tensor


def _loaded(path: Path, tensors: Tensors) -> LanguageModel:
    torch.save(tensors, path)
    with Pickle(path) as checkpoint:
        assert find_format(checkpoint).name == "RecurrentGemma"
        return assemble(checkpoint, recurrent_gemma(WINDOW, SOFT_CAP)).language_model


@pytest.mark.parametrize("origin", ["torch", "flax"])
@pytest.mark.parametrize("form", FORMS)
def test_logits(tmp_path: Path, origin: str, form: str) -> None:
    ours = _loaded(tmp_path / "2b.pt", _published(origin))
    assert difference(ours, full_forward(_theirs()), form) < TOLERANCE


def test_greedy_tokens(tmp_path: Path) -> None:
    check_greedy(_loaded(tmp_path / "2b.pt", _published("torch")), full_forward(_theirs()))


@pytest.mark.parametrize("name", ["blocks.2.attention_block.proj_q.weight", "blocks.3.mlp_block.ffw_up.b"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    tensors, (change, message) = _published("torch"), DAMAGES[damage]
    change(tensors, name)
    with pytest.raises(ArtifactError, match=message.format(name)):
        _loaded(tmp_path / "2b.pt", tensors)
