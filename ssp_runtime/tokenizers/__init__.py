"""From text to token ids and back: bytes, DNA letters, and vocabularies that come in files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssp_runtime.errors import ArtifactError
from ssp_runtime.tokenizers import huggingface, world
from ssp_runtime.tokenizers.base import Detokenizer, Tokenizer, ends_from_json
from ssp_runtime.tokenizers.dna import DNATokenizer, HyenaDNATokenizer
from ssp_runtime.tokenizers.huggingface import HuggingFaceTokenizer
from ssp_runtime.tokenizers.raw_bytes import ByteTokenizer
from ssp_runtime.tokenizers.token_ids import TokenIds
from ssp_runtime.tokenizers.world import WorldTokenizer

__all__ = [
    "ByteTokenizer",
    "DNATokenizer",
    "Detokenizer",
    "HuggingFaceTokenizer",
    "HyenaDNATokenizer",
    "TokenIds",
    "Tokenizer",
    "WorldTokenizer",
    "from_json",
]

_KINDS: Mapping[str, Callable[[Mapping[str, Any], Path], Tokenizer]] = {
    "bytes": lambda data, _: ByteTokenizer(data.get("bos_id", 0)),
    "dna": lambda _data, _folder: DNATokenizer(),
    "hyenadna": lambda _data, _folder: HyenaDNATokenizer(),
    "ids": lambda data, _: TokenIds(data["vocab_size"], ends_from_json(data["eos_id"])),
    "rwkv_world": lambda _, folder: WorldTokenizer(_file(folder / world.VOCABULARY_FILE)),
    "huggingface": lambda data, folder: HuggingFaceTokenizer(
        _file(folder / huggingface.VOCABULARY_FILE),
        data["bos_id"],
        ends_from_json(data["eos_id"]),
        data.get("mask_id"),
    ),
}


def from_json(data: Mapping[str, Any], folder: Path = Path()) -> Tokenizer:
    """The tokenizer that an artifact describes, whose files are in the folder. Raises `ArtifactError`."""
    kind = str(data.get("kind"))
    if kind not in _KINDS:
        raise ArtifactError(f"the tokenizer's kind is {kind!r}; there are {', '.join(_KINDS)}")
    try:
        tokenizer = _KINDS[kind](data, folder)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"the tokenizer's description is not that of one: {error}") from error
    if tokenizer.to_json() != data:
        raise ArtifactError(f"the tokenizer in {folder} was changed after it was written: it is not the one described")
    return tokenizer


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"the vocabulary {path} cannot be read: {error}") from error
