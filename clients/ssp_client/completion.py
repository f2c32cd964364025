"""A whole completion, gathered from its chunks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ssp_client.types import FinishReason, GenerateChunk, SessionStatus, Usage


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a generation came to; `str(completion)` is its text."""

    text: str
    token_ids: tuple[int, ...]
    # None if the stream was cut.
    finish_reason: FinishReason | None
    usage: Usage
    index: int = 0
    session: SessionStatus | None = None
    request_id: str = ""
    # Where to go on from, if it was asked for.
    state: bytes | None = None

    def __str__(self) -> str:
        return self.text


class Gathering:
    """Collects chunks of one or several completions."""

    def __init__(self) -> None:
        self._chunks: dict[int, list[GenerateChunk]] = {}

    def add(self, chunk: GenerateChunk) -> None:
        """The next chunk of the stream."""
        self._chunks.setdefault(chunk.index, []).append(chunk)

    def completions(self) -> list[Completion]:
        """What has come so far, in the order of their index."""
        return [_join(self._chunks[index]) for index in sorted(self._chunks)]

    def only(self) -> Completion:
        """The one completion; empty if no chunk came."""
        return next(iter(self.completions()), _join([]))


def collect_completions(chunks: Iterable[GenerateChunk]) -> list[Completion]:
    """Reads a stream to its end; one completion per index, so `n` of them."""
    gathering = Gathering()
    for chunk in chunks:
        gathering.add(chunk)
    return gathering.completions()


def _join(chunks: list[GenerateChunk]) -> Completion:
    last = chunks[-1] if chunks else GenerateChunk(token_ids=(), text="")
    return Completion(
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
        finish_reason=last.finish_reason,
        usage=last.usage or Usage(),
        index=last.index,
        session=last.session,
        request_id=last.request_id,
        state=last.state,
    )
