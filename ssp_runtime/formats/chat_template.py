"""The chat template of another program's checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssp_runtime.chat.template import TEMPLATE_FILE, ChatTemplate, read_source
from ssp_runtime.formats.json_file import read_settings
from ssp_runtime.formats.vocabulary import token_text


def chat_template(folder: Path) -> ChatTemplate | None:
    """That in the folder, if any: a file of its own, or else what `tokenizer_config.json` says. Raises
    `ArtifactError`."""
    settings = read_settings(folder, "tokenizer_config.json") if folder.is_dir() else {}
    path = folder / TEMPLATE_FILE
    source = read_source(path) if path.exists() else _named(settings.get("chat_template"))
    return None if source is None else ChatTemplate(source=source, tokens=_tokens(settings))


def _named(given: object) -> str | None:
    """The only one, or of several the one called "default"."""
    if isinstance(given, list):
        named = {each.get("name"): each.get("template") for each in given if isinstance(each, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else None


def _tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: token_text(given) for name, given in settings.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text is not None}
