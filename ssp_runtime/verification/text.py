"""What models are compared on."""

import random
from pathlib import Path

from ssp_runtime.errors import InvalidRequest
from ssp_runtime.formats.artifact import Artifact

_SAMPLE = Path(__file__).with_name("sample.txt")


def tokens(artifact: Artifact, text: Path | None, count: int) -> list[int]:
    """The first so many tokens of a file, or of a text that comes with this program; for a vocabulary that cannot
    express it, tokens by chance. Raises `InvalidRequest` if there are fewer than two."""
    tokenizer = artifact.description.tokenizer
    if tokenizer is None:
        raise InvalidRequest("this model takes numbers; its forms can be compared only for models that take text")
    if text is not None:
        ids = tokenizer.encode(text.read_text(encoding="utf-8"))[:count]
    else:
        try:
            ids = tokenizer.encode(_SAMPLE.read_text(encoding="utf-8"))[:count]
        except InvalidRequest:
            ids = random.Random(0).choices(range(tokenizer.vocab_size), k=count)
    if len(ids) < 2:
        raise InvalidRequest(f"{text or _SAMPLE} has too little text: at least two tokens are needed")
    return ids if tokenizer.bos_id is None else [tokenizer.bos_id, *ids]
