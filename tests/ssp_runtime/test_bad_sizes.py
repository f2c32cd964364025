"""What cannot be is refused where it is configured or built, by one sentence that names the setting to change."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.formats.foreign.rwkv import NAMES
from ssp_runtime.formats.weights import fitting
from ssp_runtime.mixers import MIXERS, build_layer, config_class
from ssp_runtime.models.architectures import model_config
from ssp_runtime.models.config import ModelConfig, TokenEmbeddingConfig, from_json, to_json
from ssp_runtime.models.model import build_model
from tests.ssp_runtime.test_oracle_rwkv import load_rwkv

DT = "choose 0 < dt_min <= dt_max"
WITH_STEPS = ("s4", "s4d", "s5", "s6", "dss", "mamba2")
EXPANDING = ("gla", "mlstm", "deltanet", "gated_deltanet", "kda")
RWKV = ("rwkv5", "rwkv6", "rwkv7")
WITH_HEADS = (*EXPANDING, *RWKV, "slstm", "retnet", "linear_attention", "rg_lru", "window_attention")
WITH_PAIRS = ("s4", "s4d", "s5", "dss")
# Settings without which other ones are not reached.
NEEDED: dict[str, dict[str, Any]] = {"dss": {"l_train": 8}, "mamba2": {"head_dim": 4}, "hgrn2": {"expand_ratio": 4}}
# Counts, and numbers above 0.
SIZES = [
    (kind, name)
    for kind in MIXERS
    for name, field in config_class(kind).__dataclass_fields__.items()  # type: ignore[attr-defined]  # a dataclass
    if "int" in str(field.type) or "Gt(gt=0)" in str(field.type)
]

CASES: list[tuple[str, dict[str, Any], int, str]] = [
    *((kind, {}, width, f"choose a width above {width}") for kind in ("mamba", "gated_mlp") for width in (0, -3)),
    *((kind, {"num_heads": 5}, 16, "heads; change num_heads") for kind in WITH_HEADS if kind != "window_attention"),
    *((kind, {"num_heads": 32}, 16, "num_heads") for kind in WITH_HEADS),
    *((kind, {"expand_k": 0.3}, 16, "16 times 0.3 are 4.8 features; change expand_k") for kind in EXPANDING),
    *((kind, {"expand_k": 1e-9}, 16, "features; change expand_k") for kind in EXPANDING),
    *((kind, {"expand_v": 0.7}, 16, "change expand_v or d_model") for kind in EXPANDING[2:]),
    *((kind, {"d_state": count}, 16, "d_state must be even") for kind in WITH_PAIRS for count in (1, 7)),
    *((kind, {"dt_min": 0.2}, 16, DT) for kind in WITH_STEPS),
    *((kind, {"dt_min": 0.0}, 16, DT) for kind in WITH_STEPS),
    *((kind, {"dt_max": -0.1}, 16, DT) for kind in WITH_STEPS),
    *((kind, {"dt_max": math.nan}, 16, DT) for kind in WITH_STEPS),
    *((kind, {"dt_max": math.inf}, 16, DT) for kind in WITH_STEPS),
    *((kind, {"depth": depth}, 16, "depth: ") for kind in MIXERS if kind.startswith("rwkv") for depth in (-0.1, 1)),
    *((kind, {"lower_bound": x}, 16, "lower_bound") for kind in ("hgrn", "hgrn2") for x in (-0.1, 1, math.nan)),
    *((kind, {"dropout": x}, 16, "dropout: ") for kind in ("simple", "whole_simple") for x in (-0.5, 1, math.nan)),
    ("mamba2", {"head_dim": 5}, 16, "32 features cannot be divided into heads of 5; change head_dim"),
    ("mamba2", {"n_groups": 3}, 16, "8 heads cannot share 3 groups; choose n_groups"),
    ("mamba2", {"time_step_limit": (0.1, 0.01)}, 16, "time_step_limit goes from a least step to a larger one"),
    ("mamba2", {"time_step_limit": (-1.0, 1.0)}, 16, "time_step_limit"),
    ("mamba2", {"time_step_limit": (math.nan, 1.0)}, 16, "time_step_limit"),
    ("hgrn2", {"expand_ratio": 5}, 16, "16 features cannot be divided into heads of 5; change expand_ratio"),
    ("retnet", {}, 12, "3 per head is odd: change num_heads"),
    ("rotary_s6", {}, 15, "15 is odd: choose an even width"),
    ("window_attention", {}, 15, "15 features cannot be divided among 4 heads"),
    ("window_attention", {"num_kv_heads": 3}, 16, "a num_heads that is a multiple of num_kv_heads"),
    ("window_attention", {"partial_rotary_factor": 0.8}, 16, "change partial_rotary_factor or num_heads"),
    ("window_attention", {"partial_rotary_factor": math.nan}, 16, "partial_rotary_factor: "),
    ("lru", {"r_min": 0.9, "r_max": 0.5}, 16, "an r_min below r_max; got 0.9 and 0.5"),
    ("lru", {"r_min": -0.1}, 16, "r_min: "),
    ("lru", {"r_max": 1.0}, 16, "r_max: .*less than 1"),
    ("griffin", {"rg_lru": {"kind": "rg_lru", "num_heads": 3}}, 16, "among 3 heads; change num_heads"),
    ("griffin", {"rg_lru": {"kind": "rg_lru", "num_heads": 0}}, 16, r"rg_lru\.num_heads: .*greater than 0"),
    ("linear_attention", {"feature_map": "identity"}, 16, "set normalize to false, or feature_map to elu"),
    ("dss", {"l_train": None}, 16, "l_train: "),
    ("mamba", {"ssp": {"kind": "s4d", "d_state": 5}}, 16, "ssp: d_state must be even"),
    ("mamba", {"ssp": {"kind": "bidirectional"}}, 16, "bidirectional needs whole sequences; a causal layer"),
    ("mamba", {"ssp": {"kind": "s66"}}, 16, "ssp: no layer is called 's66'; did you mean 's6'?"),
    ("two_sided", {"ssp": {"kind": "s6"}}, 16, "wants a time-invariant state space such as s4d, not s6"),
]


@pytest.mark.parametrize(("kind", "settings", "width", "message"), CASES)
def test_a_layer_that_cannot_be(kind: str, settings: dict[str, Any], width: int, message: str) -> None:
    model = {"layers": [{"mixer": {"kind": kind, **NEEDED.get(kind, {}), **settings}}]}
    with pytest.raises(ValueError, match=message) as refused:
        build_layer(from_json(to_json(language_model()) | model).layers[0].mixer, width)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kind", "name"), SIZES)
@pytest.mark.parametrize("value", [0, -3, math.nan, math.inf])
def test_a_size_that_is_none(kind: str, name: str, value: float) -> None:
    """Made in Python, where nothing is checked before a layer is built."""
    with pytest.raises(ValueError, match=name):
        build_layer(config_class(kind)(**{**NEEDED.get(kind, {}), name: value}), 16)


def language_model() -> ModelConfig:
    return model_config("mamba", d_model=16, num_layers=2, dropout=0.0, vocab_size=11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 0}, "d_model: .*greater than 0"),
        ({"d_model": -3}, "d_model: .*greater than 0"),
        ({"layers": ()}, "layers: .*at least 1"),
        ({"embedding": TokenEmbeddingConfig(vocab_size=0)}, r"embedding\.tokens\.vocab_size: .*greater than 0"),
        ({"embedding": TokenEmbeddingConfig(vocab_size=9, scale=math.nan)}, r"embedding\.tokens\.scale: .*finite"),
    ],
)
def test_a_model_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        build_model(replace(language_model(), **changes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "mambo"}, "no architecture is called 'mambo'; did you mean 'mamba'?"),
        ({"architecture": "nmae"}, "no architecture is called 'nmae': there are mamba, "),
        ({"architecture": "bidirectional-mamba"}, "needs causal layers; bidirectional ones can only classify"),
        ({"architecture": "retnet", "d_model": 18}, "18 features .* 4 heads; change num_heads or d_model"),
        ({"num_layers": 0}, "layers: .*at least 1"),
        ({"num_layers": -1}, "layers: .*at least 1"),
        ({"dropout": -0.5}, r"layers\.0\.dropout: .*greater than or equal to 0"),
        ({"architecture": "simple-s4d", "dropout": 1.0}, r"layers\.0\.mixer: dropout: .*less than 1"),
    ],
)
def test_an_architecture_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    sizes = {"architecture": "mamba", "d_model": 16, "num_layers": 2, "dropout": 0.0, "vocab_size": 11}
    with pytest.raises(ValueError, match=message):
        build_model(model_config(**{**sizes, **settings}))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("d_modle",), "d_modle: there is no such field; did you mean 'd_model'?"),
        (("layers", 1, "normm"), r"layers\.1\.normm: there is no such field; did you mean 'norm'?"),
        (("layers", 0, "mixer", "ssp", "d_sate"), r"layers\.0\.mixer\.ssp\.d_sate: .* did you mean 'd_state'?"),
        (("head", "zzz"), r"head\.zzz: there is no such field: there are kind, tied"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest(path: tuple[str | int, ...], message: str) -> None:
    data: Any = to_json(language_model()) | {"layers": [to_json(language_model())["layers"][0] for _ in range(2)]}
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = 1
    with pytest.raises(InvalidRequest, match=message):
        from_json(data)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.full((3,), math.nan), "w holds NaN or infinite values; take a checkpoint from before"),
        (torch.full((3,), math.inf), "w holds NaN or infinite values"),
        (torch.ones(4), r"w: \(4,\) is given, \(3,\) is wanted"),
        (torch.ones(3, dtype=torch.int64), r"w is of torch\.int64; save it as float32"),
    ],
)
def test_weights_that_cannot_be(given: Tensor, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        fitting("w", given, torch.zeros(3))


@pytest.fixture
def rwkv() -> dict[str, Tensor]:
    model = build_model(model_config("rwkv4", d_model=8, num_layers=1, dropout=0.0, vocab_size=11))
    return {NAMES.theirs(name): parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9])
def test_a_cut_rwkv_checkpoint(rwkv: dict[str, Tensor], zipped: bool, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(rwkv, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(
        ArtifactError, match=r"model\.pth cannot be read as a checkpoint of tensors: download .* again$"
    ):
        load_rwkv(path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("emb.weight", torch.zeros(()), r"emb\.weight has no size in dimension 0"),
        ("emb.weight", torch.zeros(0, 8), r"emb\.weight has no size in dimension 0: its shape is \(0, 8\)"),
        ("emb.weight", torch.zeros(11), r"emb\.weight has no size in dimension 1"),
        ("blocks.0.att.time_first", torch.full((8,), math.nan), r"blocks\.0\.att\.time_first holds NaN"),
    ],
)
def test_a_wrong_rwkv_checkpoint(rwkv: dict[str, Tensor], name: str, tensor: Tensor, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        load_rwkv({**rwkv, name: tensor})


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan])
def test_a_wrong_eps_for_an_rwkv_checkpoint(eps: float) -> None:
    model = build_model(model_config("rwkv7", d_model=8, num_layers=1, dropout=0.0, vocab_size=11))
    weights = {NAMES.theirs(name): parameter.detach() for name, parameter in model.named_parameters()}
    weights["blocks.0.att.r_k"] = weights["blocks.0.att.r_k"].view(4, 2)
    with pytest.raises(ArtifactError, match="group_norm_eps: "):
        load_rwkv(weights, group_norm_eps=eps)
