"""Models of any kind by one name, ready to serve; and all that is refused, none of which is run."""

import json
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats import artifact, hub
from ssp_runtime.formats.open import open_model, read_model
from ssp_runtime.tokenizers import ByteTokenizer, HuggingFaceTokenizer, TokenIds
from tests import oracles
from tests.ssp_runtime.formats.mamba_folder import VOCAB_SIZE, write_mamba
from tests.ssp_runtime.vocabularies import byte_level, sentencepiece

WEIGHTS = "model.safetensors"
NORM = "backbone.norm_f.weight"
NAMED = {"eos_token": "</s>"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "mamba"
    write_mamba(folder)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(published, tmp_path / "mamba"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def change_json(path: Path, **settings: object) -> None:
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**data, **settings}))


def test_a_folder_of_another_program_is_ready_to_serve(folder: Path) -> None:
    found = open_model(folder)
    assert found.description.form == "recurrent" and not found.language_model.training
    tokenizer = found.description.tokenizer
    assert isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.files == {"tokenizer.json": byte_level()}
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (None, (0, 5))
    trained = read_model(folder, pickles=False)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        ours, theirs = (m.language_model(ids, m.language_model.initial_state(1))[0] for m in (found, trained))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_its_fingerprint_is_that_of_what_it_holds(folder: Path) -> None:
    first = open_model(folder).fingerprint
    assert first == open_model(folder).fingerprint
    change_weights(folder, lambda weights: weights[NORM].mul_(2))
    second = open_model(folder).fingerprint
    (folder / "tokenizer.json").write_bytes(byte_level() + b"\n")
    assert len({first, second, open_model(folder).fingerprint}) == 3


def test_ours_keeps_its_own(folder: Path, tmp_path: Path) -> None:
    trained = read_model(folder, pickles=False)
    fingerprint = artifact.save(tmp_path / "ours", trained.model, trained.description)
    found = open_model(tmp_path / "ours")
    assert found.fingerprint == fingerprint and found.description.form == "recurrent"
    assert found.description.tokenizer == trained.description.tokenizer


@pytest.mark.parametrize(
    ("contents", "settings", "bos", "ends"),
    [
        (sentencepiece(), {}, 1, (0,)),
        (byte_level(), {"tokenizer_config.json": {"add_bos_token": True, "bos_token": {"content": "</s>"}}}, 0, (0,)),
        (sentencepiece(), {"generation_config.json": {"eos_token_id": 7}}, 1, (7,)),
        (sentencepiece(), {"generation_config.json": {"eos_token_id": [7, 2, 7]}}, 1, (7, 2)),
        (
            sentencepiece(),
            {"generation_config.json": {"eos_token_id": []}, "config.json": {"eos_token_id": [2, 9]}},
            1,
            (2, 9),
        ),
        (sentencepiece(), {"config.json": {"eos_token_id": None}, "tokenizer_config.json": NAMED}, 1, (2,)),
    ],
)
def test_beginning_and_end_of_a_text_are_the_published_ones(
    folder: Path, contents: bytes, settings: dict[str, dict[str, Any]], bos: int, ends: tuple[int, ...]
) -> None:
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer.json").write_bytes(contents)
    for name, values in settings.items():
        change_json(folder / name, **values)
    tokenizer = open_model(folder).description.tokenizer
    assert tokenizer is not None and (tokenizer.bos_id, tokenizer.eos_ids) == (bos, ends)


def test_without_a_vocabulary_it_takes_ids(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert open_model(folder).description.tokenizer == TokenIds(VOCAB_SIZE, eos_ids=(0,))


def test_a_pickle_is_for_the_converter_only(folder: Path) -> None:
    path = oracles.folder() / "rwkv" / "tiny-rwkv-4v0-660K.pth"
    with pytest.raises(ArtifactError, match=f"is a pickle, which is not served: .* ssp-model convert {path} FOLDER"):
        open_model(path)
    assert read_model(path, pickles=True).description.tokenizer == ByteTokenizer(bos_id=None)
    expected = read_model(folder, pickles=False)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match="is a pickle"):
        open_model(folder)
    assert read_model(folder, pickles=True).fingerprint == expected.fingerprint


class Harmful:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_pickle_is_not_run(how: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pth"
    weights = {"emb.weight": torch.ones(3, 2), "harm": Harmful(mark)}
    if how == "torch":
        torch.save(weights, path)
    else:
        path.write_bytes(pickle.dumps(weights, protocol=2))
    with pytest.raises(ArtifactError, match=r"model\.pth cannot be read as a checkpoint of tensors"):
        read_model(path, pickles=True)
    assert not mark.exists()


def test_code_in_a_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("modeling_mamba.py", "configuration_mamba.py", "tokenization_mamba.py", "__init__.py"):
        (folder / name).write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Made: pass\n")
    auto_map = {"AutoConfig": "configuration_mamba.Made", "AutoModelForCausalLM": "modeling_mamba.Made"}
    change_json(folder / "config.json", auto_map=auto_map, trust_remote_code=True)
    change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_mamba.Made", None]})
    open_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(NORM), f"lacks the tensor {NORM}"),
        (lambda weights: weights.update(more=torch.ones(1)), "holds the tensor more, which"),
        (lambda weights: weights.update({NORM: torch.ones(25)}), rf"{NORM}: \(25,\) is given, \(24,\) is wanted"),
        (lambda weights: weights[NORM].fill_(torch.nan), f"{NORM} holds NaN"),
        (lambda weights: weights[NORM].fill_(-torch.inf), f"{NORM} holds NaN or infinite"),
        (lambda weights: weights.update({NORM: torch.ones(24, dtype=torch.int8)}), f"{NORM} is of torch.int8; save it"),
        (
            lambda weights: weights.update({NORM: torch.ones(24).to(torch.float8_e4m3fn)}),
            f"{NORM} is of torch.float8_e4m3fn; save it as float32",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    change_weights(folder, change)
    with pytest.raises(ArtifactError, match=message):
        open_model(folder)


def lying(**header: object) -> Callable[[bytes], bytes]:
    """The same file with other claims about a tensor."""

    def change(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        claims = json.loads(data[8 : 8 + length])
        claims[NORM] |= header
        text = json.dumps(claims).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:100],
        lambda _: b"",
        lambda data: data + b"\0",
        lambda data: struct.pack("<Q", 1 << 62) + data[8:],
        lambda _: b"\xff" * 100,
        lying(data_offsets=[0, 1 << 60]),
        lying(data_offsets=[4, 0]),
        lying(shape=[1 << 40]),
        lying(shape=[-24]),
        lying(dtype="F4096"),
        lying(dtype="F64"),
    ],
)
def test_weights_that_are_cut_or_lie_are_refused(folder: Path, change: Callable[[bytes], bytes]) -> None:
    path = folder / WEIGHTS
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"the weights in .*mamba cannot be read; copy them again"):
        open_model(folder)


def sharded(folder: Path) -> Path:
    """The same in two files with an index; the index."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"part-{n % 2}.safetensors" for n, name in enumerate(weights)}
    for file in set(places.values()):
        save_file({name: tensor for name, tensor in weights.items() if places[name] == file}, folder / file)
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


def test_weights_in_several_files_are_the_same(folder: Path) -> None:
    whole = open_model(folder).fingerprint
    sharded(folder)
    assert open_model(folder).fingerprint == whole


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "inner/part.safetensors", ".."])
def test_an_index_names_files_of_its_folder_only(folder: Path, name: str) -> None:
    index = sharded(folder)
    shutil.copy(folder / "part-0.safetensors", folder.parent / "outside.safetensors")
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**places, NORM: name}}))
    with pytest.raises(ArtifactError, match=r"outside of the folder|cannot be read"):
        open_model(folder)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "absent.safetensors"}}'])
def test_an_index_that_is_none_is_refused(folder: Path, index: str) -> None:
    sharded(folder).write_text(index)
    with pytest.raises(ArtifactError, match=r"index|cannot be read"):
        open_model(folder)


def test_the_hubs_own_links_are_followed(folder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    assert open_model(folder).description.form == "recurrent"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"is no model folder: it has no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("3"), r"config\.json holds no JSON object"),
        (lambda folder: (folder / "config.json").write_text("{}"), "of no format that can be read; those are"),
        (lambda folder: (folder / WEIGHTS).unlink(), "the weights in .* cannot be read"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"tokenizer\.json cannot be read"),
        (lambda folder: (folder / "generation_config.json").write_text("["), r"generation_config\.json cannot be read"),
        (shutil.rmtree, "is no model folder: there is nothing there"),
    ],
)
def test_a_folder_that_is_no_model_says_what_it_lacks(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ArtifactError, match=message):
        open_model(folder)


def test_a_vocabulary_of_another_model_is_refused(folder: Path) -> None:
    data = json.loads(byte_level())
    data["added_tokens"] += [
        {**data["added_tokens"][0], "id": 301 + n, "content": f"<{n}>"} for n in range(VOCAB_SIZE - 300)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="the vocabulary has 305 ids, the model 304; it is that of another model"):
        open_model(folder)


def test_a_name_on_the_hub_is_taken_from_where_it_was_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "hub" / "models--somebody--tiny-mamba"
    revision = "0" * 40
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(revision)
    shutil.copytree(folder, kept / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert open_model("somebody/tiny-mamba").fingerprint == open_model(folder).fingerprint
    with pytest.raises(ArtifactError, match="there is no folder somebody/else, and the Hugging Face hub does not give"):
        open_model("somebody/else")


def test_without_the_extra_a_name_on_the_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ArtifactError, match=r"there is no folder a/b; .* pip install 'ssp\[hub\]'"):
        open_model("a/b")


@pytest.mark.parametrize("text", ["a", "a/b/c", "/a/b", "../b", "a/..", "./a", "a b/c", "a/b\n", "~/a"])
def test_other_texts_are_no_names_on_the_hub(text: str) -> None:
    assert not hub.is_name(text)
