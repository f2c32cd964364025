"""Model folders: what is written is what is read, and what was changed is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.formats import artifact
from ssp_runtime.formats.artifact import Description
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
    ValuesHeadConfig,
)
from ssp_runtime.models.model import LanguageModel, SequenceRegressor
from ssp_runtime.tokenizers import ByteTokenizer

CONFIG = ModelConfig(
    d_model=8,
    embedding=TokenEmbeddingConfig(vocab_size=256),
    layers=(BlockConfig(mixer=MambaConfig()), BlockConfig(mixer=MambaConfig(ssp=S4DConfig(d_state=4)))),
    head=LanguageModelHeadConfig(),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    artifact.save(tmp_path / "model", LanguageModel(CONFIG), Description(model=CONFIG, tokenizer=ByteTokenizer()))
    return tmp_path / "model"


def logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(torch.arange(20)[None], model.initial_state(1))[0]
    return result


def test_a_saved_model_is_loaded_as_it_was(folder: Path) -> None:
    loaded = artifact.load(folder)
    torch.manual_seed(0)
    assert torch.equal(logits(loaded.language_model), logits(LanguageModel(CONFIG)))
    assert loaded.description.model == CONFIG
    assert loaded.description.tokenizer == ByteTokenizer()


def test_tied_weights_are_stored_once_and_stay_tied(folder: Path) -> None:
    model = artifact.load(folder).language_model
    assert model.lm_head.weight is model.backbone.embedding.weight
    assert sum("lm_head" in name or "embedding" in name for name in load_file(folder / "model.safetensors")) == 1


def test_converting_keeps_the_outputs(folder: Path, tmp_path: Path) -> None:
    trained = logits(artifact.load(folder).language_model)
    converted = artifact.convert(artifact.load(folder), tmp_path / "recurrent")
    assert converted.description.form == "recurrent"
    assert torch.allclose(logits(converted.language_model), trained, atol=1e-6)
    with pytest.raises(ArtifactError, match="recurrent form already"):
        artifact.convert(converted, tmp_path / "again")


def test_a_model_of_numbers_is_converted_loaded_and_warmed_up(tmp_path: Path) -> None:
    config = replace(CONFIG, embedding=NumberEmbeddingConfig(d_input=3), head=ValuesHeadConfig(d_output=2))
    x, model = torch.randn(1, 20, 3), SequenceRegressor(config)
    artifact.save(tmp_path / "model", model, Description(model=config))
    served = artifact.convert(artifact.load(tmp_path / "model"), tmp_path / "recurrent")
    served.warm_up()
    with torch.no_grad():
        expected, state = model(x, model.initial_state(1))[0], served.sequence_regressor.initial_state(1)
        for t in range(20):
            y, state = served.sequence_regressor.step(x[:, t], state, out=state)
            assert torch.allclose(y, expected[:, t], atol=1e-5)


def test_a_model_is_asked_only_for_what_it_does(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="made to generate; it cannot predict numbers"):
        _ = artifact.load(folder).sequence_regressor
    with pytest.raises(InvalidRequest, match="made to generate; it cannot classify"):
        _ = artifact.load(folder).classifier


@pytest.mark.parametrize("position", [-1, -1000])
def test_a_flipped_bit_of_the_weights_is_refused(folder: Path, position: int) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="changed after it was written"):
        artifact.load(folder)


def test_a_changed_configuration_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data["description"] = "another"
    path.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="changed after it was written"):
        artifact.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        artifact.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_cut_file_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=name):
        artifact.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("backbone.norm_f.weight"), "lacks backbone.norm_f.weight"),
        (lambda weights: weights.update(extra=torch.ones(1)), "holds extra"),
        (lambda weights: weights.update({"backbone.norm_f.weight": torch.ones(9)}), r"\(9,\) is given"),
        (lambda weights: weights["backbone.norm_f.weight"].fill_(torch.nan), "NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder: Path, change: object, message: str) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)  # type: ignore[operator]  # one of the functions above
    save_file(weights, path)
    _seal(folder)
    with pytest.raises(ArtifactError, match=message):
        artifact.load(folder)


def test_a_lying_configuration_is_named(folder: Path) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data["model"]["layers"][0]["mixer"]["kind"] = "mamab"
    path.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=r"layers\.0\.mixer: .*did you mean 'mamba'"):
        artifact.load(folder)


def _seal(folder: Path) -> None:
    """Gives the folder the fingerprint of what it holds now."""
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data["fingerprint"] = artifact._fingerprint(data, load_file(folder / "model.safetensors"))
    path.write_text(json.dumps(data))
