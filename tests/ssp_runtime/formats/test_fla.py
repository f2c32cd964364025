"""Model folders of flash-linear-attention give the numbers of its published equations, and what cannot be served is
refused by its name."""

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.foreign import load_foreign
from ssp_runtime.models.model import LanguageModel
from tests.greedy import Greedy
from tests.ssp_runtime.formats import fla_published as published
from tests.ssp_runtime.formats.fla_shapes import random_weights
from tests.ssp_runtime.formats.foreign_harness import (
    DAMAGES,
    FORMS,
    TOLERANCE,
    WEIGHTS,
    Forward,
    Tensors,
    changed,
    difference,
    full_forward,
    moved,
)

Checkpoints = Callable[[str], tuple[Forward, Path]]

COMMON: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 3, "vocab_size": 43, "norm_eps": 1e-3, "attn": None}
TIED = {"tie_word_embeddings": True}

# Every setting that a checkpoint may have, in one of its values or in another.
MODELS: dict[str, dict[str, Any]] = {
    "gla": {"num_heads": 2, "expand_k": 0.5},
    "gla-convolved": {
        "num_heads": 4,
        "num_kv_heads": 2,
        "expand_k": 1.0,
        "expand_v": 2.0,
        "use_short_conv": True,
        "conv_size": 3,
        **TIED,
    },
    "gla-ungated": {"num_heads": 2, "expand_k": 1.0, "use_output_gate": False, "fuse_norm": False},
    "retnet": {"num_heads": 2, "expand_v": 2.0},
    "retnet-shared": {
        "num_heads": 4,
        "num_kv_heads": 2,
        "expand_k": 2.0,
        "expand_v": 1.0,
        "fuse_norm": False,
        **TIED,
    },
    "retnet-ungated": {"num_heads": 3, "expand_v": 1.0, "use_output_gate": False},
    "hgrn": {},
    "hgrn-wide": {"expand_ratio": 2, "use_lower_bound": False, **TIED},
    "hgrn2": {"expand_ratio": 6},
    "hgrn2-unbounded": {"expand_ratio": 8, "use_lower_bound": False},
    "rwkv6": {"num_heads": 2, "expand_k": 1.0, "hidden_act": "sqrelu"},
    "rwkv6-narrow": {"num_heads": 3, "expand_k": 0.5, "norm_first": False, "hidden_act": "sqrelu", **TIED},
    "rwkv7": {"head_dim": 8, "num_heads": 1, "hidden_act": "sqrelu"},
    "rwkv7-unnormed": {"head_dim": 6, "norm_first": False, "hidden_act": "sqrelu", "fuse_norm": False},
    "delta_net": {"num_heads": 2, "conv_size": 4},
    "delta_net-gated": {
        "num_heads": 3,
        "expand_k": 0.5,
        "expand_v": 2.0,
        "use_gate": True,
        "allow_neg_eigval": True,
        "use_short_conv": False,
    },
    "gated_deltanet": {"num_heads": 2, "head_dim": 6, "conv_size": 3},
    "gated_deltanet-ungated": {
        "num_heads": 3,
        "num_v_heads": 3,
        "head_dim": 4,
        "expand_v": 1.5,
        "use_gate": False,
        "allow_neg_eigval": True,
        "use_short_conv": False,
    },
    "linear_attn": {"num_heads": 2, "feature_map": "elementwise_product"},
    "linear_attn-normalized": {"num_heads": 4, "num_kv_heads": 2, "feature_map": "elu", "norm_feature_map": True},
    "linear_attn-positive": {"num_heads": 2, "feature_map": "relu", "expand_k": 0.5, "expand_v": 2.0, **TIED},
    "linear_attn-identity": {"num_heads": 3, "feature_map": "identity"},
}


def _mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    sizes = {"state_size": 6, "conv_kernel": 3, "time_step_rank": 3}
    return MambaForCausalLM(MambaConfig(**{**COMMON, **sizes}, layer_norm_epsilon=1e-3, tie_word_embeddings=False))


def _mamba2() -> Any:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    sizes = {"state_size": 6, "head_dim": 8, "num_heads": 6, "n_groups": 2, "chunk_size": 16}
    config = Mamba2Config(**{**COMMON, **sizes}, layer_norm_epsilon=1e-3, time_step_limit=(0.1, 0.9))
    return Mamba2ForCausalLM(config)


# Layers and tensors are those of `transformers`; the settings are not.
AS_IN_TRANSFORMERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "mamba": (_mamba, {"state_size": 6, "conv_kernel": 3, "dt_rank": 3, "expand": 2}),
    "mamba2": (
        _mamba2,
        {
            "state_size": 6,
            "head_dim": 8,
            "n_groups": 2,
            "dt_limit": [0.1, 0.9],
            "expand": 2,
            "conv_kernel": 4,
            "rmsnorm": True,
        },
    ),
}
NAMES = (*MODELS, *AS_IN_TRANSFORMERS)
OF_ALL = pytest.mark.parametrize("name", NAMES)
OF_EACH_TYPE = pytest.mark.parametrize("name", [name for name in NAMES if "-" not in name])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """A model of that name, and the folder it lies in."""
    return cache(lambda name: _saved(name, tmp_path_factory.mktemp(name)))


def _saved(name: str, folder: Path) -> tuple[Forward, Path]:
    model_type = name.partition("-")[0]
    if name in AS_IN_TRANSFORMERS:
        build, given = AS_IN_TRANSFORMERS[name]
        torch.manual_seed(0)
        model = moved(build())
        forward, weights = full_forward(model), dict(model.state_dict())
    else:
        given = MODELS[name]
        weights = random_weights({"model_type": model_type, **COMMON, **given})
        forward = partial(published.logits, {"model_type": model_type, **COMMON, **given}, weights)
    settings = {"model_type": model_type, **COMMON, **given}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(weights, folder / WEIGHTS)
    return forward, folder


def _load(folder: Path) -> LanguageModel:
    return load_foreign(folder).language_model


@OF_ALL
@pytest.mark.parametrize("form", FORMS)
def test_logits(checkpoint: Checkpoints, name: str, form: str) -> None:
    theirs, folder = checkpoint(name)
    assert difference(_load(folder), theirs, form) < TOLERANCE


@torch.no_grad()
@OF_ALL
def test_greedy_tokens(checkpoint: Checkpoints, name: str) -> None:
    """Theirs is causal: one forward over all tokens says of each what a forward over those before it would."""
    theirs, folder = checkpoint(name)
    ours, prompt = _load(folder), [1, 2, 3]
    to_recurrent(ours)
    tokens = Greedy(ours).tokens(prompt, 50)
    assert theirs(torch.tensor([prompt + tokens]))[0, len(prompt) - 1 : -1].argmax(-1).tolist() == tokens


def test_an_older_rwkv7_has_all_mixtures_in_one_tensor(checkpoint: Checkpoints, tmp_path: Path) -> None:
    def joined(weights: Tensors) -> None:
        for i in range(COMMON["num_hidden_layers"]):
            rows = [weights.pop(f"model.layers.{i}.attn.x_{part}").flatten() for part in "rwkvag"]
            weights[f"model.layers.{i}.attn.x_x"] = torch.stack(rows)

    theirs, folder = checkpoint("rwkv7")
    assert difference(_load(changed(folder, tmp_path / "older", tensors=joined)), theirs, "parallel") < TOLERANCE


def test_the_copy_of_a_tied_embedding_is_not_missed(checkpoint: Checkpoints, tmp_path: Path) -> None:
    def copied(weights: Tensors) -> None:
        weights["lm_head.weight"] = weights["model.embeddings.weight"].clone()

    theirs, folder = checkpoint("gla-convolved")
    assert difference(_load(changed(folder, tmp_path / "copied", tensors=copied)), theirs, "parallel") < TOLERANCE


@OF_EACH_TYPE
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_refused_by_name(checkpoint: Checkpoints, tmp_path: Path, name: str, damage: str) -> None:
    change, message = DAMAGES[damage]
    damaged = "backbone.norm_f.weight" if name in AS_IN_TRANSFORMERS else "model.layers.1.attn_norm.weight"
    folder = changed(checkpoint(name)[1], tmp_path / "damaged", tensors=lambda tensors: change(tensors, damaged))
    with pytest.raises(ArtifactError, match=message.format(damaged)):
        load_foreign(folder)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("gla-convolved", "model.layers.1.attn.v_conv1d.weight"),
        ("gla-convolved", "model.layers.1.attn.k_proj.weight"),
        ("hgrn", "model.lower_bounds"),
        ("hgrn", "model.layers.1.attn.g_proj.weight"),
        ("rwkv6", "model.layers.1.attn.x_bias"),
        ("rwkv6", "model.layers.1.attn.x_proj.2.weight"),
        ("rwkv7", "model.layers.1.attn.x_w"),
        ("rwkv7", "model.layers.2.attn.v_lora.lora.2.bias"),
        ("delta_net", "model.layers.1.attn.k_conv1d.weight"),
    ],
)
def test_a_tensor_that_is_read_in_another_way_is_missed_by_name(
    checkpoint: Checkpoints, tmp_path: Path, name: str, tensor: str
) -> None:
    broken = changed(checkpoint(name)[1], tmp_path / "broken", tensors=lambda weights: weights.pop(tensor))
    with pytest.raises(ArtifactError, match=f"lacks the tensor {tensor}"):
        load_foreign(broken)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        *((name, "attn", {"layers": [1], "num_heads": 2}) for name in MODELS if "-" not in name),
        *((name, "attnres_block_size", 2) for name in ("gla", "linear_attn")),
        *((name, "hidden_act", "powlu") for name in MODELS if "-" not in name),
        *((name, "hidden_act", "gelu") for name in AS_IN_TRANSFORMERS),
        *((name, "elementwise_affine", False) for name in ("gla", "retnet", "hgrn", "hgrn2", "linear_attn")),
        ("gla", "feature_map", "relu"),
        ("gla", "clamp_min", -1.0),
        ("retnet", "feature_map", "relu"),
        ("hgrn", "use_short_conv", True),
        ("hgrn2", "use_short_conv", True),
        ("rwkv6", "norm_bias", False),
        ("rwkv7", "norm_bias", False),
        ("rwkv7", "value_dim", 48),
        ("delta_net", "qk_activation", "elu"),
        ("delta_net", "qk_norm", "sum"),
        ("delta_net", "use_beta", False),
        ("gated_deltanet", "num_v_heads", 4),
        ("linear_attn", "tie_feature_map_qk", True),
        ("linear_attn", "norm_q", True),
        ("linear_attn", "norm_k", True),
        ("linear_attn", "feature_map", "hedgehog"),
        ("mamba2", "D_has_hdim", True),
        ("mamba2", "norm_before_gate", True),
        ("mamba2", "rmsnorm", False),
    ],
)
def test_settings_that_are_not_served_are_refused_by_name(
    checkpoint: Checkpoints, tmp_path: Path, name: str, setting: str, value: object
) -> None:
    broken = changed(
        checkpoint(name)[1], tmp_path / "broken", config=lambda settings: settings.update({setting: value})
    )
    named = "rms_norm" if setting == "rmsnorm" else setting
    with pytest.raises(ArtifactError, match=f"{named} is "):
        load_foreign(broken)


@pytest.mark.parametrize(
    ("name", "setting"), [("gla", "num_heads"), ("hgrn2", "vocab_size"), ("rwkv7", "num_hidden_layers")]
)
def test_a_setting_that_is_missing_is_named(checkpoint: Checkpoints, tmp_path: Path, name: str, setting: str) -> None:
    folder = changed(checkpoint(name)[1], tmp_path / "lacking", config=lambda settings: settings.pop(setting))
    with pytest.raises(ArtifactError, match=f"its configuration lacks {setting}"):
        load_foreign(folder)
