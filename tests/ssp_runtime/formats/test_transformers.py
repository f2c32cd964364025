"""Checkpoints that `transformers` saved give the numbers of its own full forward."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.foreign import load_foreign
from tests.ssp_runtime.formats.foreign_harness import (
    DAMAGES,
    FORMS,
    TOLERANCE,
    Change,
    changed,
    check_greedy,
    difference,
    full_forward,
    moved,
)

Checkpoints = Callable[[str], tuple[Any, Path]]

VOCABULARY = 43
MAMBA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 20,
    "state_size": 6,
    "num_hidden_layers": 3,
    "layer_norm_epsilon": 1e-4,
    "conv_kernel": 3,
    "expand": 3,
}


def _mamba(**settings: Any) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(**MAMBA, **settings))


def _falcon_mamba(**settings: Any) -> Any:
    from transformers import FalconMambaConfig, FalconMambaForCausalLM

    return FalconMambaForCausalLM(FalconMambaConfig(**MAMBA, **settings))


def _mamba2(**settings: Any) -> Any:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    return Mamba2ForCausalLM(Mamba2Config(**MAMBA, num_heads=12, head_dim=5, chunk_size=16, **settings))


def _recurrent_gemma(**settings: Any) -> Any:
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    config = RecurrentGemmaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=38,
        num_attention_heads=3,
        rms_norm_eps=1e-3,
        attention_window_size=5,
        **settings,
    )
    return RecurrentGemmaForCausalLM(config)


def _rwkv(**settings: Any) -> Any:
    from transformers import RwkvConfig, RwkvForCausalLM

    return RwkvForCausalLM(RwkvConfig(vocab_size=VOCABULARY, hidden_size=20, **settings))


def _xlstm(**settings: Any) -> Any:
    from transformers import xLSTMConfig, xLSTMForCausalLM

    return xLSTMForCausalLM(xLSTMConfig(vocab_size=VOCABULARY, hidden_size=24, num_heads=3, chunk_size=16, **settings))


# Every setting that a checkpoint may have, in one of its values or in another.
MODELS: dict[str, Callable[[], Any]] = {
    "mamba": lambda: _mamba(time_step_rank=4),
    "mamba-biased": lambda: _mamba(
        use_bias=True, use_conv_bias=False, residual_in_fp32=False, tie_word_embeddings=False
    ),
    "falcon_mamba": lambda: _falcon_mamba(mixer_rms_eps=1e-2, tie_word_embeddings=False),
    "falcon_mamba-biased": lambda: _falcon_mamba(use_bias=True, use_conv_bias=False, time_step_rank=3),
    "mamba2": lambda: _mamba2(n_groups=3, time_step_limit=(0.3, 0.9)),
    "mamba2-biased": lambda: _mamba2(n_groups=1, use_bias=True, use_conv_bias=False, tie_word_embeddings=True),
    "recurrent_gemma": lambda: _recurrent_gemma(num_hidden_layers=4, num_key_value_heads=1, logits_soft_cap=3.0),
    "recurrent_gemma-biased": lambda: _recurrent_gemma(
        num_hidden_layers=5,
        block_types=("attention", "recurrent"),
        lru_width=30,
        conv1d_width=3,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 1.0},
        tie_word_embeddings=False,
    ),
    "rwkv": lambda: _rwkv(num_hidden_layers=4, rescale_every=1, layer_norm_epsilon=0.1, intermediate_size=33),
    "rwkv-rescaled-late": lambda: _rwkv(num_hidden_layers=3, rescale_every=2, layer_norm_epsilon=0.1),
    "rwkv-tied": lambda: _rwkv(num_hidden_layers=2, rescale_every=0, tie_word_embeddings=True),
    "xlstm": lambda: _xlstm(num_hidden_layers=2, output_logit_soft_cap=3.0),
    "xlstm-wide": lambda: _xlstm(
        num_hidden_layers=3,
        norm_eps=1e-2,
        qk_dim_factor=1.0,
        gate_soft_cap=2.0,
        ffn_proj_factor=1.7,
        ffn_round_up_to_multiple_of=7,
    ),
}
OF_ALL = pytest.mark.parametrize("name", MODELS)
# Of each type of model, a tensor of its last block.
LAST = {
    "mamba": "backbone.layers.2.mixer.out_proj.weight",
    "falcon_mamba": "backbone.layers.2.mixer.A_log",
    "mamba2": "backbone.layers.2.mixer.dt_bias",
    "recurrent_gemma": "model.layers.3.temporal_pre_norm.weight",
    "rwkv": "rwkv.blocks.3.attention.time_mix_value",
    "xlstm": "backbone.blocks.1.mlstm_layer.igate_preact.bias",
}
OF_EACH_TYPE = pytest.mark.parametrize("name", LAST)
NORM = "model.final_norm.weight"
WRONG: list[tuple[str, str, object]] = [
    ("mamba", "hidden_act", "gelu"),
    ("falcon_mamba", "hidden_act", "relu"),
    ("mamba2", "hidden_act", "relu"),
    ("mamba2", "rms_norm", False),
    ("mamba2", "time_step_limit", [0.5, 0.1]),
    ("recurrent_gemma", "hidden_activation", "silu"),
    ("recurrent_gemma", "embeddings_scale_by_sqrt_dim", False),
    ("recurrent_gemma", "block_types", ["recurrent", "mlp"]),
    ("recurrent_gemma", "rope_parameters", {"rope_type": "linear"}),
    ("recurrent_gemma", "rope_scaling", 2.0),
    ("rwkv", "attention_hidden_size", 40),
    ("xlstm", "use_bias", True),
    ("xlstm", "add_out_norm", False),
    ("xlstm", "weight_mode", "fused"),
    ("xlstm", "tie_word_embeddings", True),
    ("xlstm", "v_dim_factor", 0.5),
    ("xlstm", "eps", 1e-3),
    ("xlstm", "gate_soft_cap", -1.0),
]


def _rope_settings_among_the_others(settings: dict[str, Any]) -> None:
    rotary = settings.pop("rope_parameters")
    settings.update(rope_theta=rotary["rope_theta"], partial_rotary_factor=rotary["partial_rotary_factor"])


def _sizes_as_in_xlstm_7b(settings: dict[str, Any]) -> None:
    settings.update(embedding_dim=settings.pop("hidden_size"), num_blocks=settings.pop("num_hidden_layers"))


OLDER: dict[str, tuple[Change, Change]] = {
    "mamba": (
        lambda settings: settings.pop("tie_word_embeddings"),
        lambda tensors: tensors.update(
            {"backbone.embedding.weight": tensors.pop("backbone.embeddings.weight")},
        ),
    ),
    "mamba2-biased": (lambda settings: settings.update(time_step_limit=[0.0, math.inf]), lambda _: None),
    "recurrent_gemma-biased": (_rope_settings_among_the_others, lambda _: None),
    "xlstm": (_sizes_as_in_xlstm_7b, lambda _: None),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """A model of that name, and the folder it was saved in before it ran: RWKV changes its weights then."""

    @cache
    def saved(name: str) -> tuple[Any, Path]:
        torch.manual_seed(0)
        model, path = moved(MODELS[name]()), tmp_path_factory.mktemp(name)
        model.save_pretrained(path)
        return model, path

    return saved


@OF_ALL
@pytest.mark.parametrize("form", FORMS)
def test_logits(checkpoint: Checkpoints, name: str, form: str) -> None:
    theirs, folder = checkpoint(name)
    assert difference(load_foreign(folder).language_model, full_forward(theirs), form) < TOLERANCE


@OF_EACH_TYPE
def test_greedy_tokens(checkpoint: Checkpoints, name: str) -> None:
    theirs, folder = checkpoint(name)
    check_greedy(load_foreign(folder).language_model, full_forward(theirs))


@OF_EACH_TYPE
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_refused_by_name(checkpoint: Checkpoints, tmp_path: Path, name: str, damage: str) -> None:
    damaged, (change, message) = LAST[name], DAMAGES[damage]
    _, folder = checkpoint(name)
    folder = changed(folder, tmp_path / "damaged", tensors=lambda tensors: change(tensors, damaged))
    with pytest.raises(ArtifactError, match=message.format(damaged)):
        load_foreign(folder)


@pytest.mark.parametrize(("name", "setting", "value"), WRONG)
def test_settings_that_cannot_be_served_are_refused_by_name(
    checkpoint: Checkpoints, tmp_path: Path, name: str, setting: str, value: object
) -> None:
    _, folder = checkpoint(name)
    folder = changed(folder, tmp_path / "wrong", config=lambda settings: settings.update({setting: value}))
    with pytest.raises(ArtifactError, match=next(iter(value)) if isinstance(value, dict) else setting):
        load_foreign(folder)


@OF_EACH_TYPE
def test_a_missing_setting_is_named(checkpoint: Checkpoints, tmp_path: Path, name: str) -> None:
    _, folder = checkpoint(name)
    folder = changed(folder, tmp_path / "lacking", config=lambda settings: settings.pop("vocab_size"))
    with pytest.raises(ArtifactError, match="its configuration lacks vocab_size"):
        load_foreign(folder)


@pytest.mark.parametrize("name", OLDER)
def test_older_files_say_the_same_in_other_words(checkpoint: Checkpoints, tmp_path: Path, name: str) -> None:
    change, tensors = OLDER[name]
    _, folder = checkpoint(name)
    older = changed(folder, tmp_path / "older", config=change, tensors=tensors)
    assert load_foreign(older).fingerprint == load_foreign(folder).fingerprint


def test_norms_of_recurrent_gemma_keep_what_bfloat16_cannot_add_to_1(checkpoint: Checkpoints, tmp_path: Path) -> None:
    weight = torch.full((24,), 2.0**-10, dtype=torch.bfloat16)
    _, folder = checkpoint("recurrent_gemma")
    small = changed(folder, tmp_path / "small", tensors=lambda tensors: tensors.update({NORM: weight}))
    norm = load_foreign(small).language_model.backbone.norm_f.get_parameter("weight")
    assert torch.equal(norm, torch.full((24,), 1 + 2.0**-10))
