"""Checkpoints under the names of `mamba_ssm`: the numbers of `transformers`, whose mixers have the same keys."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.foreign import load_foreign
from tests.ssp_runtime.formats.foreign_harness import (
    FORMS,
    TOLERANCE,
    Forward,
    Tensors,
    check_greedy,
    difference,
    full_forward,
    moved,
)

VOCABULARY, PADDED, WIDTH, LAYERS = 43, 48, 20, 2
SIZES: dict[str, Any] = {"vocab_size": PADDED, "hidden_size": WIDTH, "num_hidden_layers": LAYERS}


def _mamba(**settings: Any) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(**SIZES, **settings))


def _mamba2(**settings: Any) -> Any:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    config = Mamba2Config(**SIZES, chunk_size=16, time_step_limit=(0.3, 0.9), tie_word_embeddings=True, **settings)
    return Mamba2ForCausalLM(config)


def _with_layer_norms(model: Any) -> Any:
    for block in model.backbone.layers:
        block.norm = nn.LayerNorm(WIDTH)
    model.backbone.norm_f = nn.LayerNorm(WIDTH)
    return model


@dataclass(frozen=True)
class Model:
    """What `transformers` makes of it, and what its configuration says in `mamba_ssm`."""

    theirs: Callable[[], Any]
    ssm_cfg: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


MODELS = {
    "mamba": Model(_mamba),
    "mamba-biased": Model(
        lambda: _mamba(
            state_size=6,
            conv_kernel=3,
            expand=3,
            time_step_rank=4,
            use_bias=True,
            use_conv_bias=False,
            tie_word_embeddings=False,
        ),
        {"layer": "Mamba1", "d_state": 6, "d_conv": 3, "expand": 3, "dt_rank": 4, "bias": True, "conv_bias": False},
        {"tie_embeddings": False, "pad_vocab_size_multiple": 16},
    ),
    "mamba-layer-norm": Model(lambda: _with_layer_norms(_mamba()), config={"rms_norm": False}),
    "mamba2": Model(
        lambda: _mamba2(state_size=6, num_heads=8, head_dim=5, n_groups=2),
        {"layer": "Mamba2", "d_state": 6, "headdim": 5, "ngroups": 2, "dt_limit": [0.3, 0.9], "chunk_size": 128},
        {"attn_layer_idx": [], "d_intermediate": 0, "residual_in_fp32": True},
    ),
}
OF_ALL = pytest.mark.parametrize("name", MODELS)


@cache
def _theirs(name: str) -> Any:
    torch.manual_seed(0)
    return moved(MODELS[name].theirs())


def _forward(name: str) -> Forward:
    """Without the logits of the rows that fill the vocabulary up."""
    forward = full_forward(_theirs(name))
    return lambda ids: forward(ids)[..., :VOCABULARY]


def _tensors(name: str) -> Tensors:
    state_dict: dict[str, Tensor] = _theirs(name).state_dict()
    return {key.replace("embeddings", "embedding"): tensor.clone() for key, tensor in state_dict.items()}


def _config(name: str) -> dict[str, Any]:
    model = MODELS[name]
    return {"d_model": WIDTH, "n_layer": LAYERS, "vocab_size": VOCABULARY, "ssm_cfg": model.ssm_cfg, **model.config}


def _written(folder: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@OF_ALL
@pytest.mark.parametrize("form", FORMS)
def test_logits(tmp_path: Path, name: str, form: str) -> None:
    folder = _written(tmp_path, _tensors(name), _config(name))
    assert difference(load_foreign(folder).language_model, _forward(name), form) < TOLERANCE


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_greedy_tokens(tmp_path: Path, name: str) -> None:
    """No row that fills the vocabulary up is ever a token."""
    check_greedy(load_foreign(_written(tmp_path, _tensors(name), _config(name))).language_model, _forward(name))


def test_weights_in_several_files_are_the_same_model(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    tensors = _tensors("mamba2")
    _written(whole, tensors, _config("mamba2"))
    _written(parts, {}, _config("mamba2"))
    (parts / "pytorch_model.bin").unlink()
    for i, names in enumerate([sorted(tensors)[::2], sorted(tensors)[1::2]]):
        torch.save({name: tensors[name] for name in names}, parts / f"pytorch_model-{i + 1:05}-of-00002.bin")
    assert load_foreign(parts).fingerprint == load_foreign(whole).fingerprint


EMBEDDING, A_LOG = "backbone.embedding.weight", "backbone.layers.1.mixer.A_log"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(A_LOG), f"lacks the tensor {A_LOG}"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "holds the tensor extra"),
        (lambda tensors: tensors.update({A_LOG: tensors[A_LOG][:-1]}), f"{A_LOG}: .* is wanted"),
        (lambda tensors: tensors.update({EMBEDDING: tensors[EMBEDDING][:-1]}), rf"{EMBEDDING}: \(47, 20\) is given"),
        (lambda tensors: tensors[A_LOG].fill_(math.inf), f"{A_LOG} holds NaN or infinite"),
    ],
)
def test_damaged_tensors_are_refused_by_name(tmp_path: Path, change: Callable[[Tensors], object], message: str) -> None:
    tensors = _tensors("mamba")
    change(tensors)
    with pytest.raises(ArtifactError, match=message):
        load_foreign(_written(tmp_path, tensors, _config("mamba")))


@pytest.mark.parametrize(
    ("name", "config", "ssm_cfg", "message"),
    [
        ("mamba", {"attn_layer_idx": [1]}, {}, "attn_layer_idx"),
        ("mamba", {"d_intermediate": 64}, {}, "d_intermediate"),
        ("mamba", {"n_layer": "2"}, {}, "does not make a model"),
        ("mamba", {}, {"layer": "Mamba3"}, "only Mamba1 and Mamba2 can be served"),
        ("mamba", {}, {"headdim": 4}, "its ssm_cfg has the setting headdim"),
        ("mamba2", {}, {"d_ssm": 20}, "d_ssm"),
        ("mamba2", {}, {"D_has_hdim": True}, "D_has_hdim"),
        ("mamba2", {}, {"rmsnorm": False}, "rmsnorm"),
        ("mamba2", {}, {"norm_before_gate": True}, "norm_before_gate"),
        ("mamba2", {}, {"dt_rank": 4}, "its ssm_cfg has the setting dt_rank"),
    ],
)
def test_settings_that_cannot_be_served_are_refused_by_name(
    tmp_path: Path, name: str, config: dict[str, Any], ssm_cfg: dict[str, Any], message: str
) -> None:
    wrong = {**_config(name), **config, "ssm_cfg": {**MODELS[name].ssm_cfg, **ssm_cfg}}
    with pytest.raises(ArtifactError, match=message):
        load_foreign(_written(tmp_path, _tensors(name), wrong))
