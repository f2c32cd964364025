"""Checkpoints of the source thesis' code give the numbers that it gave."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.thesis import load_thesis
from ssp_runtime.mixers.s4d import S4D, S4DConfig
from ssp_runtime.models.model import CausalBackbone, Classifier, LanguageModel
from ssp_runtime.state import initial_state
from tests import oracles
from tests.ssp_runtime.laws import folded_step

TOLERANCE = 1e-4  # against another implementation (MODELS.md, section 4)

CLASSIFIERS = [
    "mamba_s6_cls_tok",
    "mamba_s6_rms_cls_tok",
    "mamba_s4d_legs_cls_tok",
    "mamba_s4d_legs_cls_cont",
    "simple_s4d_post",
    "simple_s4d_pre",
    "simple_s4d_lin",
    "simple_s4d_inv",
]
UNSUPPORTED = {
    "mamba_s6_bi_cls_tok": "bi_s6",
    "mamba_s6_rope_cls_tok": "pos_emb",
    "mamba_s4_legs_cls_tok": "dplr",
    "mamba_s4d_paper_bi_tok": "paper_bi",
    "mamba_s4d_sequential_bi_tok": "sequential_bi",
    "mamba_s4d_placebo_tok": "placebo",
}


@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier(name: str) -> None:
    oracle = oracles.entry("thesis", name)
    model = load_thesis(oracle["state_dict_before"], oracle["meta"])
    assert isinstance(model, Classifier)
    assert oracles.difference(model(oracle["input"]), oracle["output"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_causal_classifier_token_by_token(name: str) -> None:
    oracle = oracles.entry("thesis", name)
    model = load_thesis(oracle["state_dict_before"], oracle["meta"])
    assert isinstance(model, Classifier)
    backbone = _causal(model)
    state = initial_state(backbone.state_spec, len(oracle["input"]), torch.float32, torch.device("cpu"))
    hidden_BLD, _ = folded_step(backbone, oracle["input"], state)
    assert oracles.difference(model.decoder(hidden_BLD.mean(1)), oracle["output"]) < TOLERANCE


@torch.no_grad()
def test_a_language_model() -> None:
    oracle = oracles.entry("thesis", "mamba_s6_lm")
    model = load_thesis(oracle["state_dict_before"], oracle["meta"])
    assert isinstance(model, LanguageModel)
    logits, _ = model(oracle["input"], model.initial_state(3))
    assert oracles.difference(logits, oracle["output"]) < TOLERANCE
    stepped, _ = folded_step(model, oracle["input"], model.initial_state(3))
    assert oracles.difference(stepped, oracle["output"]) < TOLERANCE


@torch.no_grad()
def test_the_diagonal_kernel() -> None:
    oracle = oracles.entry("thesis", "kernel_diag_disczoh")
    mixer = S4D(4, S4DConfig(d_state=8))
    mixer.coefficients.load_state_dict({n: t.squeeze(0) for n, t in oracle["state_dict"].items()}, strict=True)
    mixer.D.zero_()
    y_BLD, _ = mixer(oracle["u"].mT, mixer.initial_state(2, like=oracle["u"]))
    assert oracles.difference(y_BLD.mT, oracle["y"]) < TOLERANCE
    impulse_BLD = torch.zeros(1, 32, 4).index_fill(1, torch.tensor([0]), 1)
    k_BLD, _ = mixer(impulse_BLD, mixer.initial_state(1, like=impulse_BLD))
    assert oracles.difference(k_BLD.mT, oracle["k"]) < TOLERANCE


@pytest.mark.parametrize(("name", "option"), UNSUPPORTED.items())
def test_what_is_not_supported_is_refused_by_name(name: str, option: str) -> None:
    oracle = oracles.entry("thesis", name)
    with pytest.raises(ArtifactError, match=option):
        load_thesis(oracle["state_dict_before"], oracle["meta"])


@pytest.fixture
def checkpoint() -> tuple[dict[str, Tensor], dict[str, Any]]:
    oracle = oracles.entry("thesis", "simple_s4d_pre")
    return dict(oracle["state_dict_before"]), dict(oracle["meta"])


Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]


def test_a_missing_tensor_is_named(checkpoint: Checkpoint) -> None:
    tensors, meta = checkpoint
    del tensors["layers.1.output_linear.0.bias"]
    with pytest.raises(ArtifactError, match=r"lacks .*layers\.1\.mixer\.output_linear\.bias"):
        load_thesis(tensors, meta)


def test_a_tensor_without_a_place_is_named(checkpoint: Checkpoint) -> None:
    tensors, meta = checkpoint
    with pytest.raises(ArtifactError, match="pos_emb_layer"):
        load_thesis({**tensors, "layers.0.pos_emb_layer.freqs": torch.zeros(4)}, meta)
    with pytest.raises(ArtifactError, match=r"backbone\.norm_f\.bias, which such a model does not have"):
        load_thesis({**tensors, "norm_f.bias": torch.zeros(16)}, meta)


def test_a_tensor_of_another_shape_is_named(checkpoint: Checkpoint) -> None:
    tensors, meta = checkpoint
    with pytest.raises(ArtifactError, match=r"decoder\.bias: \(6,\) is given, \(5,\) is wanted"):
        load_thesis({**tensors, "decoder.bias": torch.zeros(6)}, meta)
    with pytest.raises(ArtifactError, match=r"layers\.0\.s4fft\.fftconv\.D: \(2, 16, 1\)"):
        load_thesis({**tensors, "layers.0.s4fft.fftconv.D": torch.zeros(2, 16, 1)}, meta)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls": "Hyena"}, "cls must be MambaModel or S4ClassicModel, not 'Hyena'"),
        ({"d_state": 7}, "d_state must be even"),
        ({"d_model": None}, "do not make a model"),
        ({"bi_module": {"d_model_scale": 0.66}}, "bi_module"),
        ({"s4_kwargs": {}}, "dplr"),
    ],
)
def test_wrong_options_are_named(checkpoint: Checkpoint, change: dict[str, Any], message: str) -> None:
    tensors, meta = checkpoint
    with pytest.raises(ArtifactError, match=message):
        load_thesis(tensors, {**meta, **change})


def test_missing_options_are_named(checkpoint: Checkpoint) -> None:
    tensors, meta = checkpoint
    del meta["d_state"]
    with pytest.raises(ArtifactError, match="lack 'd_state'"):
        load_thesis(tensors, meta)


def _causal(model: Classifier) -> CausalBackbone:
    backbone = CausalBackbone(model.config)
    backbone.load_state_dict(model.backbone.state_dict(), strict=True)
    return backbone
