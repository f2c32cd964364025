"""How fast a server classifies: sequences and tokens per second over lengths."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ssp_client.bench.prompts import random_ids, random_vectors
from ssp_client.client import Client
from ssp_client.types import ModelInfo


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Sequences of one length; `seconds` is for all of them."""

    length: int
    sequences: int
    seconds: float

    @property
    def sequences_per_second(self) -> float:
        """Sequences classified per second."""
        return self.sequences / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens (or vectors) read per second."""
        return self.length * self.sequences / self.seconds


def measure(
    client: Client, model: ModelInfo, *, length: int, count: int, batch_size: int | None, look_ahead: int, seed: int
) -> Throughput:
    """Classifies `count` random sequences of `length`, after one batch to warm up."""
    make = random_ids if model.vocab_size else random_vectors
    sequences = make(model, count, length, np.random.default_rng(seed))
    client.classify(sequences[: batch_size or 8], model=model.name, batch_size=batch_size)
    start = time.perf_counter()
    for _ in client.classify_many(sequences, model=model.name, batch_size=batch_size, look_ahead=look_ahead):
        pass
    return Throughput(length=length, sequences=count, seconds=time.perf_counter() - start)
