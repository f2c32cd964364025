"""Step time against position: a recurrent model takes as long for token 100,000 as for token 100."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ssp_client.bench.stats import Bucket, buckets, slope
from ssp_client.client import Client
from ssp_client.session import Session
from ssp_client.types import ModelInfo, StreamOptions


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Chunks of one long session: where each ended, and its seconds per token."""

    positions: tuple[int, ...]
    seconds_per_token: tuple[float, ...]

    def buckets(self, count: int) -> list[Bucket]:
        """The medians over equal ranges of positions."""
        return buckets(self.positions, self.seconds_per_token, count)

    def slope(self) -> float:
        """Seconds per token gained per position, of the line through all chunks."""
        return slope(self.positions, self.seconds_per_token)


def walk(
    client: Client, model: ModelInfo, *, positions: int, chunk_tokens: int, advanced: Callable[[int], object]
) -> Walk:
    """Generates `positions` tokens in one session, in as many calls as the model's limits ask for.

    A chunk's time is the gap to the chunk before it in the same call; the first chunk of each call, which holds
    the call's own cost, is not counted.
    """
    measured: list[tuple[int, float]] = []
    with client.open_session(model.name) as session:
        session.append([0] if model.vocab_size else " ")
        made = 0
        while made < positions:
            wanted = min(positions - made, model.limits.max_tokens or positions)
            measured += _one_call(session, wanted, chunk_tokens, advanced)
            made += wanted
    if not measured:
        raise ValueError("too few tokens to measure; raise --positions above a few times --chunk-tokens")
    where, times = zip(*measured, strict=True)
    return Walk(positions=where, seconds_per_token=times)


def _one_call(
    session: Session, tokens: int, chunk_tokens: int, advanced: Callable[[int], object]
) -> list[tuple[int, float]]:
    measured, before = [], None
    options = StreamOptions(max_chunk_tokens=chunk_tokens, max_chunk_delay_ms=60_000)
    position = session.position or 0
    for chunk in session.generate(max_tokens=tokens, ignore_eos=True, temperature=0, stream_options=options):
        now, count = time.perf_counter(), len(chunk.token_ids)
        position += count
        if before is not None and count:
            measured.append((position, (now - before) / count))
        before = now
        advanced(count)
    return measured
