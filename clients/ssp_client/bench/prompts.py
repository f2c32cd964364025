"""What requests ask: random token ids, or slices of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssp_client.types import ModelInfo, SequenceLike


def random_ids(model: ModelInfo, count: int, length: int, generator: np.random.Generator) -> list[SequenceLike]:
    """`count` prompts of `length` token ids within the model's vocabulary.

    Raises:
        ValueError: the model has no vocabulary.
    """
    if not model.vocab_size:
        raise ValueError(f"model {model.name!r} reads vectors, not tokens; it cannot be measured so")
    return [generator.integers(model.vocab_size, size=length) for _ in range(count)]


def random_vectors(model: ModelInfo, count: int, length: int, generator: np.random.Generator) -> list[SequenceLike]:
    """`count` sequences of `length` normal vectors of the model's width."""
    return [generator.standard_normal((length, model.d_input), np.float32) for _ in range(count)]


def slices(path: Path, count: int, length: int, generator: np.random.Generator) -> list[SequenceLike]:
    """`count` pieces of `length` characters from random places of a UTF-8 file.

    Raises:
        ValueError: the file is shorter, or not UTF-8.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error
    if len(text) < length:
        raise ValueError(f"{path} has {len(text)} characters; a prompt takes {length}")
    starts = generator.integers(len(text) - length + 1, size=count)
    return [text[start : start + length] for start in starts.tolist()]
