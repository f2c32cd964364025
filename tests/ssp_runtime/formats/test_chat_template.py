"""The chat template of a checkpoint goes with it into our artifact, and is nothing to those that have none."""

import json
from pathlib import Path
from typing import Any

import pytest

from ssp_runtime.chat.template import TEMPLATE_FILE, ChatTemplate
from ssp_runtime.commands.convert import convert
from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.chat_template import chat_template
from ssp_runtime.formats.open import open_model
from tests.ssp_runtime.chat.templates import ALTERNATING, TURNS
from tests.ssp_runtime.formats.mamba_folder import write_mamba

SETTINGS = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": None, "legacy": True}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    write_mamba(folder)
    return folder


@pytest.fixture
def converted(checkpoint: Path, tmp_path: Path) -> Path:
    (checkpoint / TEMPLATE_FILE).write_text(TURNS)
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    convert(str(checkpoint), tmp_path / "ours")
    return tmp_path / "ours"


def written(folder: Path, **settings: Any) -> ChatTemplate | None:
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS | settings))
    return chat_template(folder)


def test_a_template_is_found_where_it_is_published(tmp_path: Path) -> None:
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": TURNS}]
    assert chat_template(tmp_path) is None and written(tmp_path) is None
    assert written(tmp_path, chat_template=TURNS) == ChatTemplate(source=TURNS, tokens=tokens)
    assert written(tmp_path, chat_template=several) == ChatTemplate(source=TURNS, tokens=tokens)
    assert written(tmp_path, chat_template=several[:1]) is None
    (tmp_path / TEMPLATE_FILE).write_text(ALTERNATING)
    assert written(tmp_path, chat_template=TURNS) == ChatTemplate(source=ALTERNATING, tokens=tokens)


def test_it_is_converted_with_its_model(converted: Path) -> None:
    found = open_model(converted)
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    assert found.description.chat_template == ChatTemplate(source=TURNS, tokens=tokens)
    assert (converted / TEMPLATE_FILE).read_text() == TURNS


def test_without_one_an_artifact_is_what_it_was(checkpoint: Path, tmp_path: Path) -> None:
    convert(str(checkpoint), tmp_path / "ours")
    keys = {"format_version", "form", "model", "tokenizer", "labels", "description", "training", "fingerprint"}
    assert json.loads((tmp_path / "ours" / "config.json").read_text()).keys() == keys
    assert open_model(tmp_path / "ours").description.chat_template is None


def test_one_that_was_changed_is_refused(converted: Path) -> None:
    (converted / TEMPLATE_FILE).write_text(TURNS + " ")
    with pytest.raises(ArtifactError, match=r"the chat template in .* was changed after it was written"):
        open_model(converted)
    (converted / TEMPLATE_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"the chat template .*chat_template\.jinja cannot be read"):
        open_model(converted)


@pytest.mark.parametrize("described", [None, "text", {}, {"sha256": "0"}, {"sha256": "0", "tokens": {"a": 1}}])
def test_a_description_that_is_none_is_refused(converted: Path, described: object) -> None:
    path = converted / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": described}))
    with pytest.raises(ArtifactError, match="chat template"):
        open_model(converted)


def test_one_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="the chat template is no text"):
        written(tmp_path, chat_template="half \ud800")


@pytest.mark.parametrize(
    ("contents", "match"), [(b"\xff", "cannot be read"), (b"x" * 262_145, "the chat template has 262145 bytes")]
)
def test_a_file_that_is_no_template_is_refused(checkpoint: Path, contents: bytes, match: str) -> None:
    (checkpoint / TEMPLATE_FILE).write_bytes(contents)
    with pytest.raises(ArtifactError, match=match):
        open_model(checkpoint)
