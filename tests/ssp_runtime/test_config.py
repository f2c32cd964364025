"""Configurations as JSON, and what is said of wrong ones."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ssp_runtime.errors import InvalidRequest
from ssp_runtime.mixers import MIXERS, build_mixer, config_class
from ssp_runtime.mixers.bidirectional import BidirectionalMambaConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
    ValuesHeadConfig,
    from_json,
    to_json,
)
from ssp_runtime.models.model import Classifier, LanguageModel, SequenceRegressor, build_model

LANGUAGE_MODEL = ModelConfig(
    d_model=8,
    embedding=TokenEmbeddingConfig(vocab_size=7),
    layers=(
        BlockConfig(mixer=MambaConfig(ssp=S6Config(d_state=4, dt_rank=2), d_conv=3)),
        BlockConfig(mixer=MambaConfig(ssp=S6Config(d_state=4, dt_rank=2), d_conv=3)),
        BlockConfig(mixer=SimpleConfig(ssp=S4DConfig(init="inv")), norm=NormConfig(kind="layer"), norm_position="post"),
    ),
    head=LanguageModelHeadConfig(tied=False, bias=True),
)
CLASSIFIER = ModelConfig(
    d_model=8,
    embedding=NumberEmbeddingConfig(d_input=2),
    layers=(BlockConfig(mixer=BidirectionalMambaConfig(ssp=S4DConfig(d_state=4)), dropout=0.1),),
    head=ClassificationHeadConfig(num_classes=3),
    final_norm=None,
)
REGRESSOR = replace(LANGUAGE_MODEL, embedding=NumberEmbeddingConfig(d_input=2), head=ValuesHeadConfig(d_output=3))


REQUIRED: dict[str, dict[str, int]] = {"dss": {"l_train": 32}}  # settings without a default


@pytest.mark.parametrize("config", [LANGUAGE_MODEL, CLASSIFIER, REGRESSOR])
def test_a_round_trip_through_json(config: ModelConfig) -> None:
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("kind", MIXERS)
def test_every_layer_survives_it_with_its_defaults(kind: str) -> None:
    required = REQUIRED.get(kind, {})
    data = to_json(LANGUAGE_MODEL) | {"layers": [{"mixer": {"kind": kind, **required}}]}
    assert from_json(data).layers[0].mixer == config_class(kind)(**required)


def test_the_architecture_in_words() -> None:
    assert LANGUAGE_MODEL.architecture == "2 x mamba(s6), 1 x simple(s4d)"
    assert CLASSIFIER.architecture == "1 x bidirectional_mamba(s4d)"
    assert replace(LANGUAGE_MODEL, layers=LANGUAGE_MODEL.layers[1:] * 2).architecture == "2 x (mamba(s6), simple(s4d))"


def test_the_head_decides_what_is_built() -> None:
    assert isinstance(build_model(LANGUAGE_MODEL), LanguageModel)
    assert isinstance(build_model(CLASSIFIER), Classifier)
    assert isinstance(build_model(REGRESSOR), SequenceRegressor)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("d_model",), 0, "d_model: .*greater than 0"),
        (("d_model",), "wide", "d_model"),
        (("d_modell",), 8, "d_modell"),
        (("layers", 0, "norm_position"), "middle", r"layers\.0\.norm_position: .*'pre' or 'post'"),
        (("layers", 0, "dropout"), 1.5, r"layers\.0\.dropout"),
        (("layers", 0, "norm", "kind"), "batch", r"layers\.0\.norm\.kind"),
        (("layers", 1, "mixer", "kind"), "manba", r"layers\.1\.mixer: .*manba.* did you mean 'mamba'\?"),
        (("layers", 1, "mixer", "ssp", "kind"), "s7", r"layers\.1\.mixer.*'s7'"),
        (("layers", 1, "mixer", "ssp", "d_state"), 0, r"layers\.1\.mixer.*d_state"),
        (("layers", 1, "mixer", "ssp", "d_stat"), 4, r"layers\.1\.mixer.*d_stat"),
        (("layers", 1, "mixer", "d_conv"), -1, r"layers\.1\.mixer.*d_conv"),
        (("layers", 2, "mixer", "ssp", "d_state"), 7, r"layers\.2\.mixer.*d_state must be even"),
        (("layers", 2, "mixer", "ssp", "init"), "hippo", r"layers\.2\.mixer.*init"),
        (("embedding", "kind"), "words", "embedding.*'tokens'"),
        (("embedding", "vocab_size"), -1, "embedding.*vocab_size"),
        (("head", "kind"), "regression", "head.*'language_model'"),
    ],
)
def test_what_is_wrong_is_named(path: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        from_json(_with(to_json(LANGUAGE_MODEL), path, value))


@pytest.mark.parametrize("name", ["d_model", "embedding", "layers", "head"])
def test_what_is_missing_is_named(name: str) -> None:
    data = to_json(LANGUAGE_MODEL)
    del data[name]
    with pytest.raises(InvalidRequest, match=name):
        from_json(data)


@pytest.mark.parametrize("mixer", [None, "mamba", {}])
def test_a_mixer_has_a_kind(mixer: object) -> None:
    with pytest.raises(InvalidRequest, match=r"layers\.0\.mixer"):
        from_json(_with(to_json(LANGUAGE_MODEL), ("layers", 0, "mixer"), mixer))


def test_an_unknown_layer_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"no layer is called 'manba'; did you mean 'mamba'\?"):
        config_class("manba")
    with pytest.raises(ValueError, match="no layer is called 'transformer': there are s6, "):
        config_class("transformer")


@pytest.mark.parametrize("d_state", [0, 1, 7])
def test_conjugate_pairs_need_an_even_d_state(d_state: int) -> None:
    with pytest.raises(ValueError, match="d_state must be even"):
        S4DConfig(d_state=d_state)


@pytest.mark.parametrize("config", [LANGUAGE_MODEL, REGRESSOR])
def test_a_model_with_an_answer_at_every_step_needs_causal_layers(config: ModelConfig) -> None:
    data = to_json(config) | {"layers": [{"mixer": {"kind": "bidirectional_mamba"}}]}
    with pytest.raises(InvalidRequest, match="needs causal layers"):
        build_model(from_json(data))


def test_a_language_model_embeds_tokens() -> None:
    data = to_json(LANGUAGE_MODEL) | {"embedding": {"kind": "numbers", "d_input": 2}}
    with pytest.raises(InvalidRequest, match="embeds tokens"):
        build_model(from_json(data))


def test_a_sequence_regressor_embeds_numbers() -> None:
    data = to_json(REGRESSOR) | {"embedding": {"kind": "tokens", "vocab_size": 2}}
    with pytest.raises(InvalidRequest, match="embeds numbers"):
        build_model(from_json(data))


def test_a_classifier_has_a_classification_head() -> None:
    with pytest.raises(InvalidRequest, match="classification head"):
        Classifier(LANGUAGE_MODEL)


def test_a_layer_inside_a_layer_must_be_causal() -> None:
    with pytest.raises(ValueError, match="bidirectional_mamba needs whole sequences"):
        build_mixer(SimpleConfig(ssp=BidirectionalMambaConfig()), 8)


def _with(data: dict[str, Any], path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The same JSON with another value at `path`."""
    changed: dict[str, Any] = json.loads(json.dumps(data))
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed
