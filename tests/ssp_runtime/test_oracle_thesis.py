"""Checkpoints of the source thesis' code give the numbers that it gave."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.thesis import load_thesis
from ssp_runtime.formats.thesis.tensors import divided, under
from ssp_runtime.mixers.base import SequenceLayer
from ssp_runtime.mixers.s4d import S4D, S4DConfig
from ssp_runtime.models.blocks import CausalBlock, WholeBlock
from ssp_runtime.models.model import CausalBackbone, Classifier, LanguageModel, Model
from ssp_runtime.state import initial_state
from tests import oracles
from tests.ssp_runtime.laws import folded_step

TOLERANCE = 1e-4  # against another implementation (MODELS.md, section 4)

CAUSAL = [
    "mamba_s6_cls_tok",
    "mamba_s6_rms_cls_tok",
    "mamba_s6_rope_cls_tok",
    "mamba_s4d_legs_cls_tok",
    "mamba_s4d_legs_cls_cont",
    "mamba_s4d_placebo_tok",
    "mamba_s4_legs_cls_tok",
    "mamba_s4_legs_lmax_cls_tok",
    "simple_s4d_post",
    "simple_s4d_pre",
    "simple_s4d_lin",
    "simple_s4d_inv",
]
BOTH_WAYS = ["mamba_s6_bi_cls_tok", "mamba_s4d_paper_bi_tok", "mamba_s4d_sequential_bi_tok"]
LANGUAGE_MODELS = ["mamba_s6_lm", "mamba_s4_lm"]
# A run rewrites the C of S4, see `recovered_C`; the function is the same.
MOMENTS = pytest.mark.parametrize("moment", ["before", "after"])


@torch.no_grad()
@MOMENTS
@pytest.mark.parametrize("name", [*CAUSAL, *BOTH_WAYS])
def test_a_classifier(name: str, moment: str) -> None:
    oracle = oracles.entry("thesis", name)
    model = load_thesis(oracle[f"state_dict_{moment}"], oracle["meta"])
    assert isinstance(model, Classifier)
    assert oracles.difference(model(oracle["input"]), oracle["output"]) < TOLERANCE


@torch.no_grad()
@MOMENTS
@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_classifier_token_by_token(name: str, moment: str) -> None:
    oracle = oracles.entry("thesis", name)
    model = load_thesis(oracle[f"state_dict_{moment}"], oracle["meta"])
    assert isinstance(model, Classifier)
    backbone = _causal(model)
    state = initial_state(backbone.state_spec, len(oracle["input"]), torch.float32, torch.device("cpu"))
    hidden_BLD, _ = folded_step(backbone, oracle["input"], state)
    assert oracles.difference(model.decoder(hidden_BLD.mean(1)), oracle["output"]) < TOLERANCE


@torch.no_grad()
@MOMENTS
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_model(name: str, moment: str) -> None:
    oracle = oracles.entry("thesis", name)
    model = load_thesis(oracle[f"state_dict_{moment}"], oracle["meta"])
    assert isinstance(model, LanguageModel)
    logits, _ = model(oracle["input"], model.initial_state(3))
    assert oracles.difference(logits, oracle["output"]) < TOLERANCE
    stepped, _ = folded_step(model, oracle["input"], model.initial_state(3))
    assert oracles.difference(stepped, oracle["output"]) < TOLERANCE


@torch.no_grad()
def test_a_stacked_kernel_holds_those_of_both_directions() -> None:
    """Made of `sequential_bi`, whose numbers it has to give."""
    oracle = oracles.entry("thesis", "mamba_s4d_sequential_bi_tok")
    theirs = dict[str, Tensor]()
    for name, tensor in oracle["state_dict_before"].items():
        if ".k1." in name:
            second = oracle["state_dict_before"][name.replace(".k1.", ".k2.")]
            theirs[name.replace(".k1.", ".kernel.")] = torch.cat([tensor, second], dim=1 if tensor.ndim == 4 else 0)
        elif ".k2." not in name:
            theirs[name] = tensor
    model = load_thesis(theirs, _directed(oracle["meta"], "stacked_bi"))
    assert oracles.difference(model(oracle["input"]), oracle["output"]) < TOLERANCE


@torch.no_grad()
def test_a_tied_kernel_serves_both_directions() -> None:
    oracle = oracles.entry("thesis", "mamba_s4d_legs_cls_tok")
    theirs: dict[str, Tensor] = oracle["state_dict_before"]
    twice = {name.replace(".kernel.", f".{k}."): tensor for k in ("k1", "k2") for name, tensor in theirs.items()}
    tied = load_thesis(theirs, _directed(oracle["meta"], "sequential_bi_tied"))
    sequential = load_thesis(twice, _directed(oracle["meta"], "sequential_bi"))
    torch.testing.assert_close(tied(oracle["input"]), sequential(oracle["input"]))


@torch.no_grad()
@pytest.mark.parametrize(("direction", "channels"), [("paper_bi", 2), ("sequential_bi_tied", 1)])
def test_s4_in_both_directions_before_and_after_a_run(direction: str, channels: int) -> None:
    oracle, outputs = oracles.entry("thesis", "mamba_s4_legs_cls_tok"), list[Tensor]()
    for moment in ("before", "after"):
        theirs: dict[str, Tensor] = oracle[f"state_dict_{moment}"]
        C = {name: tensor.expand(channels, -1, -1, -1) for name, tensor in theirs.items() if name.endswith("kernel.C")}
        outputs.append(load_thesis(theirs | C, _directed(oracle["meta"], direction))(oracle["input"]))
    assert oracles.difference(*outputs) < 1e-5
    assert oracles.difference(outputs[0], oracle["output"]) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_two_blocks_in_one(tied: bool) -> None:
    """`bi_module`: two causal blocks, the second of them on the reversed sequence."""
    around, blocks, meta = _one_layer_and_two_blocks(tied)
    causal = [load_thesis(around | under("layers.0.mixer.", block), meta) for block in blocks]
    both = load_thesis(around | _in_one(blocks), _doubled(meta, tied))
    forward, backward, whole = (_first_mixer(model) for model in (*causal, both))
    x_BLD = torch.randn(2, 20, 16)
    torch.testing.assert_close(whole.encode(x_BLD), forward.encode(x_BLD) + backward.encode(x_BLD.flip(1)).flip(1))
    assert both.config.architecture == ("1 x bidirectional_mamba(s6)" if tied else "1 x bidirectional(mamba)")


def test_two_blocks_that_should_share_their_projections() -> None:
    around, blocks, meta = _one_layer_and_two_blocks(tied=False)
    with pytest.raises(ArtifactError, match=r"in_proj\.weight differ, .* bi_module\.tie_linear_proj"):
        load_thesis(around | _in_one(blocks), _doubled(meta, tied=True))


@torch.no_grad()
def test_positions_in_some_layers_only() -> None:
    oracle = oracles.entry("thesis", "mamba_s6_rope_cls_tok")
    for loc in ("first", "everyother"):
        meta = oracle["meta"] | {"pos_emb": oracle["meta"]["pos_emb"] | {"loc": loc}}
        model = load_thesis(oracle["state_dict_before"], meta)
        assert model.config.architecture == "1 x mamba(rotary_s6), 1 x mamba(s6)"


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


POSITIONS, SELECTIVE_BOTH_WAYS = {"pos_emb": {"loc": "all", "b_c_dt_x": "b_c"}}, {"bi_s6": {"bi": True}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s4_kwargs": {"mode": "hyena"}}, "s4_kwargs.mode='hyena'"),
        ({"s4_kwargs": {"mode": "diag", "bi": "half_dim_bi"}}, "s4_kwargs.bi='half_dim_bi' with mode='diag'"),
        ({"s4_kwargs": {"mode": "dplr", "bi": "placebo"}}, "s4_kwargs.bi='placebo' with mode='dplr'"),
        ({"s4_kwargs": {"mode": "diag", "channels": 2}}, "s4_kwargs.channels=2"),
        ({"s4_kwargs": {"mode": "diag"}} | POSITIONS, "pos_emb of MambaModel with mode='diag'"),
        ({"s4_kwargs": {"mode": "diag"}} | SELECTIVE_BOTH_WAYS, "bi_s6 of MambaModel with mode='diag'"),
        (SELECTIVE_BOTH_WAYS | POSITIONS, "bi_s6 together with pos_emb"),
        (SELECTIVE_BOTH_WAYS | {"bi_module": {"d_model_scale": 1}}, "bi_s6 together with bi_module"),
        ({"bi_module": {"placebo": True}}, "bi_module.placebo=True"),
        ({"pos_emb": {"classic_learned": "classic_learned"}}, "pos_emb.classic_learned"),
        ({"pos_emb": True}, "pos_emb=True"),
        ({"pos_emb": {"loc": "last", "b_c_dt_x": "x"}}, "pos_emb.loc='last'"),
        ({"reversed_pre": True}, "reversed_pre=True"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    oracle = oracles.entry("thesis", "mamba_s6_cls_tok")
    with pytest.raises(ArtifactError, match=message):
        load_thesis(oracle["state_dict_before"], {**oracle["meta"], **change})


def test_kernels_of_another_direction_are_refused() -> None:
    oracle = oracles.entry("thesis", "mamba_s4d_sequential_bi_tok")
    with pytest.raises(ArtifactError, match=r"s4_kwargs\.bi does not go with kernels called k1, k2"):
        load_thesis(oracle["state_dict_before"], _directed(oracle["meta"], ""))
    oracle = oracles.entry("thesis", "mamba_s4d_legs_cls_tok")
    with pytest.raises(ArtifactError, match="paper_bi' needs a C for either direction"):
        load_thesis(oracle["state_dict_before"], _directed(oracle["meta"], "paper_bi"))
    oracle = oracles.entry("thesis", "mamba_s6_cls_tok")
    with pytest.raises(ArtifactError, match=r"lacks .*A2_log.* in layers\.0\."):
        load_thesis(oracle["state_dict_before"], oracle["meta"] | SELECTIVE_BOTH_WAYS)


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
    with pytest.raises(ArtifactError, match=r"layers\.0\.mixer\.ssp\.D: \(32,\) is given, \(16,\) is wanted"):
        load_thesis({**tensors, "layers.0.s4fft.fftconv.D": torch.zeros(2, 16, 1)}, meta)
    oracle = oracles.entry("thesis", "mamba_s4d_placebo_tok")
    flat = {"layers.0.mixer.s4fft.fftconv.k1.B": torch.zeros(0, 0)}
    with pytest.raises(ArtifactError, match=r"shapes of the tensors in layers\.0\. do not go together"):
        load_thesis({**oracle["state_dict_before"], **flat}, oracle["meta"])


def test_a_tensor_with_nan_is_named(checkpoint: Checkpoint) -> None:
    tensors, meta = checkpoint
    with pytest.raises(ArtifactError, match=r"decoder\.bias holds NaN"):
        load_thesis({**tensors, "decoder.bias": torch.full((5,), torch.nan)}, meta)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls": "Hyena"}, "cls must be MambaModel or S4ClassicModel, not 'Hyena'"),
        ({"d_state": 7}, "d_state must be even"),
        ({"d_model": None}, "do not make a model"),
        ({"bi_module": {"d_model_scale": 0.66}}, "bi_module"),
        ({"s4_kwargs": {}}, r"lacks .*layers\.0\.mixer\.ssp\.coefficients\.P"),
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


def _directed(meta: dict[str, Any], direction: str) -> dict[str, Any]:
    return meta | {"s4_kwargs": meta["s4_kwargs"] | {"bi": direction}}


def _one_layer_and_two_blocks(tied: bool) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], dict[str, Any]]:
    """A causal model of one layer without its block, the blocks of two layers, and the options."""
    oracle = oracles.entry("thesis", "mamba_s6_cls_tok")
    first, second, around = divided(oracle["state_dict_before"], "layers.0.mixer.", "layers.1.mixer.")
    if tied:
        second |= {name: first[name] for name in ("in_proj.weight", "out_proj.weight")}
    around = {name: tensor for name, tensor in around.items() if not name.startswith("layers.1.")}
    return around, [first, second], oracle["meta"] | {"n_layer": 1}


def _in_one(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return under("layers.0.mixer.forward_model.", blocks[0]) | under("layers.0.mixer.backward_model.", blocks[1])


def _doubled(meta: dict[str, Any], tied: bool) -> dict[str, Any]:
    halves = {"d_model_scale": 0.75, "d_state_scale": 0.5, "tie_linear_proj": tied}
    return meta | {"d_model": 22, "d_state": 17, "bi_module": halves}  # both are rounded down


def _first_mixer(model: Model) -> SequenceLayer:
    block = model.backbone.layers[0]
    assert isinstance(block, CausalBlock | WholeBlock)
    return block.mixer
