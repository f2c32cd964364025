"""The vocabulary of another program's checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssp_runtime import tokenizers
from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.json_file import read_settings
from ssp_runtime.models.config import EmbeddingConfig, NumberEmbeddingConfig
from ssp_runtime.tokenizers import ByteTokenizer, HuggingFaceTokenizer, TokenIds, Tokenizer, WorldTokenizer
from ssp_runtime.tokenizers.huggingface import VOCABULARY_FILE

_NUM_BYTES = 256


def vocabulary(checkpoint: Checkpoint, embedding: EmbeddingConfig) -> Tokenizer | None:
    """That in the folder of the checkpoint, if any; without one a model of 256 tokens is over bytes, and any other
    takes ids. None for a model of numbers. Raises `ArtifactError`."""
    if isinstance(embedding, NumberEmbeddingConfig):
        return None
    if (checkpoint.path / VOCABULARY_FILE).exists():
        return _huggingface(checkpoint.path, checkpoint.config)
    if embedding.vocab_size == _NUM_BYTES and not checkpoint.config:
        return ByteTokenizer(bos_id=None)
    return TokenIds(embedding.vocab_size, _ids(checkpoint.config.get("eos_token_id")))


def vocabulary_from(name: str) -> Tokenizer:
    """By the name of a kind ("bytes", "dna", "hyenadna"), or from a file: `tokenizer.json`, or RWKV's vocabulary.

    Raises:
        ArtifactError: it is none of these.
    """
    path = Path(name)
    if not path.exists():
        return tokenizers.from_json({"kind": name})
    contents = path.read_bytes()
    return HuggingFaceTokenizer(contents) if path.suffix == ".json" else WorldTokenizer(contents)


def _huggingface(folder: Path, config: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """It puts the beginning of a text before one if the published tokenizer does. The ends of a text are those of the
    first file that names any."""
    contents = (folder / VOCABULARY_FILE).read_bytes()
    plain = HuggingFaceTokenizer(contents)
    settings, generation = (
        read_settings(folder, "tokenizer_config.json"),
        read_settings(folder, "generation_config.json"),
    )
    bos_id = next(iter(plain.prefix), None)
    if bos_id is None and settings.get("add_bos_token"):
        bos_id = _special(plain, settings, "bos_token")
    named = (generation.get("eos_token_id"), config.get("eos_token_id"), _special(plain, settings, "eos_token"))
    eos_ids: tuple[int, ...] = next(filter(None, map(_ids, named)), ())
    return HuggingFaceTokenizer(contents, bos_id, eos_ids, _special(plain, settings, "mask_token"))


def _special(tokenizer: HuggingFaceTokenizer, settings: Mapping[str, Any], name: str) -> int | None:
    text = token_text(settings.get(name))
    return None if text is None else tokenizer.id_of(text)


def token_text(given: object) -> str | None:
    """Of a token that is named by it, or as an object that has it."""
    text = given.get("content") if isinstance(given, dict) else given
    return text if isinstance(text, str) else None


def _ids(given: object) -> tuple[int, ...]:
    """Those named, one by itself or several in a list; none twice."""
    several = given if isinstance(given, list) else [given]
    return tuple(dict.fromkeys(each for each in several if isinstance(each, int) and not isinstance(each, bool)))
