"""Caduceus-Ph and -PS give their authors' numbers, and what -PS says of two strands agrees to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.foreign import load_foreign
from ssp_runtime.models.strands import OtherStrand
from ssp_runtime.tokenizers import HyenaDNATokenizer, TokenIds
from tests import oracles
from tests.ssp_runtime.formats.caduceus_folder import COMPLEMENT, PH, PS, other_strand, write_caduceus
from tests.ssp_runtime.formats.foreign_harness import DAMAGES, FORMS, TOLERANCE, changed

OF_BOTH = pytest.mark.parametrize("entry", [PH, PS])


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a folder; see `write_caduceus`."""

    def saved(entry: str, num_blocks: int = 2, score: Tensor | None = None) -> Path:
        return write_caduceus(tmp_path_factory.mktemp(entry), entry, num_blocks, score)

    return saved


@torch.no_grad()
@OF_BOTH
@pytest.mark.parametrize("form", FORMS)
def test_logits(save: Callable[..., Path], entry: str, form: str) -> None:
    oracle = oracles.entry("caduceus", entry)
    model = load_foreign(save(entry)).masked_language_model
    if form == "recurrent":
        to_recurrent(model)
    assert oracles.difference(model(oracle["input_ids"]), oracle["logits"]) < TOLERANCE


@torch.no_grad()
def test_hidden_states(save: Callable[..., Path]) -> None:
    """Those of -PS are a strand's, and the other's with both their dimensions reversed."""
    oracle = oracles.entry("caduceus", PS)
    ids, model = oracle["input_ids"], load_foreign(save(PS)).masked_language_model
    other = model.backbone.encode(other_strand(ids)).flip(1, 2)
    assert oracles.difference(torch.cat([model.backbone.encode(ids), other], -1), oracle["hidden"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_ps_is_what_its_code_does(save: Callable[..., Path], num_blocks: int) -> None:
    """A loop over the blocks, both halves in the places where the published code has them; blocks are those of -Ph."""
    oracle = oracles.entry("caduceus", PS)
    ids, model = oracle["input_ids"], load_foreign(save(PS, num_blocks)).masked_language_model
    hidden = _hidden_of_ps(save, ids, num_blocks)
    weight = oracle["state_dict"]["lm_head.lm_head.weight"]
    expected = hidden[..., :16] @ weight.T + hidden[..., 16:].flip(-1) @ weight[COMPLEMENT].T
    assert oracles.difference(model(ids), expected) < TOLERANCE


def _hidden_of_ps(save: Callable[..., Path], ids: Tensor, num_blocks: int) -> Tensor:
    weights = oracles.entry("caduceus", PS)["state_dict"]
    embedding = weights["caduceus.backbone.embeddings.word_embeddings.embedding.weight"]
    one_strand = load_foreign(_as_ph(save(PS))).masked_language_model.backbone
    halves = [embedding[ids], embedding[other_strand(ids)].flip(1, 2)]
    for block in list(one_strand.layers)[:num_blocks]:
        first, second = block.encode(halves[1]), block.encode(halves[0].flip(1, 2))  # type: ignore[operator]
        halves = [first, second.flip(1, 2)]
    return torch.cat([one_strand.norm_f(halves[0]), one_strand.norm_f(halves[1].flip(1, 2)).flip(1, 2)], -1)


def _as_ph(folder: Path) -> Path:
    """The same weights in the places where -Ph has them."""

    def renamed(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensor = tensors.pop(name)
            if "complement_map" not in name:
                plain = name.replace(".submodule", "").replace("embeddings.embedding", "embeddings")
                tensors[plain.replace("lm_head.lm_head", "lm_head")] = tensor

    return changed(folder, folder / "ph", config=lambda settings: settings.update(rcps=False), tensors=renamed)


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_ps_is_equivariant(save: Callable[..., Path], num_blocks: int) -> None:
    """To the bit, and in a batch of several lengths, each row within its own."""
    model = load_foreign(save(PS, num_blocks)).masked_language_model
    ids, lengths = torch.randint(7, 11, (2, 21)), torch.tensor([21, 13])
    others = torch.stack([_padded(other_strand(row[None, :n])[0], 21) for row, n in zip(ids, lengths, strict=True)])
    for row, of_other, n in zip(model(ids, lengths), model(others, lengths), lengths, strict=True):
        assert torch.equal(row[:n], of_other[:n].flip(0)[:, COMPLEMENT])


def _padded(ids_L: Tensor, length: int) -> Tensor:
    return torch.cat([ids_L, ids_L.new_full((length - len(ids_L),), 999)])


@torch.no_grad()
@OF_BOTH
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_classifiers_average_both_strands(save: Callable[..., Path], entry: str, num_blocks: int) -> None:
    ids, score = oracles.entry("caduceus", entry)["input_ids"], torch.randn(3, 16)
    classifier = load_foreign(save(entry, num_blocks, score)).classifier
    if entry == PS:
        hidden = _hidden_of_ps(save, ids, num_blocks)
        strands = hidden[..., :16], hidden[..., 16:].flip(1, 2)
    else:
        backbone = load_foreign(save(entry, num_blocks)).masked_language_model.backbone
        strands = backbone.encode(ids), backbone.encode(other_strand(ids))
    expected = sum(strand.mean(1) @ score.T for strand in strands) / 2
    assert oracles.difference(classifier(ids), torch.as_tensor(expected)) < TOLERANCE
    assert torch.equal(classifier(ids), classifier(other_strand(ids)))


def test_what_is_shared_may_be_left_out(save: Callable[..., Path], tmp_path: Path) -> None:
    """The projections of both directions, and a head that is the embedding."""

    def with_copies(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["caduceus.backbone.embeddings.word_embeddings.weight"].clone()

    def without_copies(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            if name.startswith("lm_head") or name.endswith(("mamba_rev.in_proj.weight", "mamba_rev.out_proj.weight")):
                del tensors[name]

    large = changed(save(PH), tmp_path / "large", tensors=with_copies)
    small = changed(large, tmp_path / "small", tensors=without_copies)
    assert load_foreign(small).fingerprint == load_foreign(large).fingerprint


def test_classes_have_the_names_of_its_settings(save: Callable[..., Path], tmp_path: Path) -> None:
    folder = save(PH, 2, torch.randn(2, 16))
    named = changed(folder, tmp_path / "named", config=lambda it: it.update(id2label={"0": "coding", "1": "other"}))
    assert load_foreign(named).description.labels == ("coding", "other")
    assert load_foreign(folder).description.labels == ()


@OF_BOTH
def test_its_vocabulary_is_of_letters_and_has_a_mask(save: Callable[..., Path], entry: str) -> None:
    """The published code has it, and no file does."""
    tokenizer = load_foreign(save(entry)).description.tokenizer
    assert tokenizer == HyenaDNATokenizer() and tokenizer.encode("AC[MASK]N[MASK]") == [7, 8, 3, 11, 3]


def test_a_vocabulary_of_other_letters_is_not_guessed(save: Callable[..., Path], tmp_path: Path) -> None:
    others = {str(token): token for token in range(16)}
    folder = changed(save(PS), tmp_path / "others", config=lambda settings: settings.update(complement_map=others))
    assert load_foreign(folder).description.tokenizer == TokenIds(16)


@OF_BOTH
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_refused_by_name(
    save: Callable[..., Path], tmp_path: Path, entry: str, damage: str
) -> None:
    change, message = DAMAGES[damage]
    mixer = "mixer.submodule" if entry == PS else "mixer"
    damaged = f"caduceus.backbone.layers.1.{mixer}.mamba_rev.A_log"
    folder = changed(save(entry), tmp_path / "damaged", tensors=lambda tensors: change(tensors, damaged))
    with pytest.raises(ArtifactError, match=message.format(damaged)):
        load_foreign(folder)


@pytest.mark.parametrize(
    ("entry", "setting", "value"),
    [
        (PH, "bidirectional", False),
        (PH, "bidirectional_strategy", "ew_multiply"),
        (PS, "bidirectional_weight_tie", False),
        (PS, "fused_add_norm", False),
        (PS, "complement_map", {str(i): 7 for i in range(16)}),
        (PH, "ssm_cfg", {"d_state": 8, "bias": True}),
        (PH, "ssm_cfg", {"d_state": 8, "conv_bias": False}),
        (PH, "ssm_cfg", {"d_state": 8, "layer": "Mamba2"}),
    ],
)
def test_settings_that_are_not_served_are_refused_by_name(
    save: Callable[..., Path], tmp_path: Path, entry: str, setting: str, value: Any
) -> None:
    folder = changed(save(entry), tmp_path / "wrong", config=lambda settings: settings.update({setting: value}))
    named = next((name for name in value if name != "d_state"), "") if setting == "ssm_cfg" else setting
    with pytest.raises(ArtifactError, match="complement must pair" if named == "complement_map" else f"{named} is "):
        load_foreign(folder)


@pytest.mark.parametrize("complement", [(0, 2, 1), (1, 2, 3, 0), (0, 1, 2, 4), (0, 1, -1, 3)])
def test_complements_come_in_pairs(complement: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="complement must pair 4 tokens"):
        OtherStrand(complement, 4)
