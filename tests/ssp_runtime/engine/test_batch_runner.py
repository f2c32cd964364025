"""Whole sequences in batches: no sequence's result depends on its batch mates, and every caller hears back."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from ssp_runtime.engine.batch_runner import BatchConfig, BatchRunner
from ssp_runtime.errors import Draining, Exhausted, InvalidRequest
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.mixers.bidirectional import BidirectionalMambaConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    MaskedLanguageModelHeadConfig,
    ModelConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
)
from ssp_runtime.models.model import Classifier, build_model
from ssp_runtime.tokenizers import DNATokenizer
from tests.ssp_runtime.engine.engine_harness import PATIENCE

RANDOM = np.random.default_rng(0)
ROWS = [RANDOM.integers(0, 5, length).tolist() for length in (1, 2, 3, 400, 7, 64, 65, 1, 130, 20)]


@cache
def artifact(*, numeric: bool = False) -> Artifact:
    embedding = NumberEmbeddingConfig(d_input=3) if numeric else TokenEmbeddingConfig(vocab_size=5)
    config = ModelConfig(
        d_model=16,
        embedding=embedding,
        layers=(BlockConfig(mixer=BidirectionalMambaConfig()),),
        head=ClassificationHeadConfig(num_classes=4),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(config).eval()
    return Artifact(description=Description(model=config, tokenizer=DNATokenizer()), model=model, fingerprint="")


def masked_model(complement: tuple[int, ...] | None) -> Artifact:
    config = ModelConfig(
        d_model=16,
        embedding=TokenEmbeddingConfig(vocab_size=5),
        layers=(BlockConfig(mixer=BidirectionalMambaConfig()),),
        head=MaskedLanguageModelHeadConfig(complement=complement),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(config).eval()
    return Artifact(description=Description(model=config, tokenizer=DNATokenizer()), model=model, fingerprint="")


def classifier(*, numeric: bool = False, started: bool = True, **config: Any) -> AbstractContextManager[BatchRunner]:
    return batches(artifact(numeric=numeric), started=started, **config)


@contextmanager
def batches(found: Artifact, *, started: bool = True, **config: Any) -> Iterator[BatchRunner]:
    made = BatchRunner("tiny", found, BatchConfig(**config))
    if started:
        made.start()
    yield made
    if started:
        made.stop()


def test_a_sequence_alone_equals_itself_among_others() -> None:
    with classifier() as made:
        together = np.array(made.submit(ROWS).result(PATIENCE))
        alone = np.concatenate([made.submit([row]).result(PATIENCE) for row in ROWS])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together - together[0]).max() > 1e-3, "the model cannot tell them apart"


@pytest.mark.parametrize("bounds", [{"batch_tokens": 1}, {"batch_tokens": 100}, {"max_rows": 3}], ids=str)
def test_the_batches_do_not_matter(bounds: dict[str, Any]) -> None:
    with classifier() as free, classifier(**bounds) as bounded:
        assert np.allclose(free.submit(ROWS).result(PATIENCE), bounded.submit(ROWS).result(PATIENCE), atol=1e-5)


def test_many_callers_at_once_get_their_own() -> None:
    with classifier() as made:
        futures = [made.submit(ROWS[i:]) for i in range(len(ROWS))]
        whole = futures[0].result(PATIENCE)
        for i, future in enumerate(futures):
            assert np.allclose(future.result(PATIENCE), whole[i:], atol=1e-5)


def places(row: list[int]) -> list[int]:
    """The last of a row, and every fifth: none of them padding."""
    return [len(row) - 1, *range(0, len(row) - 1, 5)]


@pytest.mark.parametrize("complement", [None, (3, 2, 1, 0, 4)])
def test_a_sequence_is_answered_at_its_own_places_whatever_its_mates(complement: tuple[int, ...] | None) -> None:
    """Of a masked language model, with one strand or both."""
    parts = [places(row) for row in ROWS]
    found = masked_model(complement)
    with batches(found) as made:
        together = made.submit(ROWS, parts).result(PATIENCE)
        alone = [made.submit([row], [part]).result(PATIENCE)[0] for row, part in zip(ROWS, parts, strict=True)]
        whole = made.submit(ROWS[:1]).result(PATIENCE)
    with torch.inference_mode():
        expected = [found.masked_language_model(torch.tensor([row]))[0].numpy() for row in ROWS]
    for row, part, among, by_itself, all_places in zip(ROWS, parts, together, alone, expected, strict=True):
        assert np.abs(among - by_itself).max() < 1e-5, f"of {len(row)} tokens"
        assert np.abs(among - all_places[part]).max() < 1e-5, f"of {len(row)} tokens"
    assert np.abs(whole[0] - expected[0]).max() < 1e-5


def test_vectors_of_numbers() -> None:
    rows = [RANDOM.normal(size=(length, 3)).astype(np.float32) for length in (1, 5, 90)]
    with classifier(numeric=True) as made:
        together = np.array(made.submit(rows).result(PATIENCE))
        assert np.allclose(made.submit(rows[1:2]).result(PATIENCE), together[1:2], atol=1e-5)


@pytest.mark.parametrize(
    ("numeric", "row", "message"),
    [
        (False, [], "it must have 1 to 50 tokens, not 0"),
        (False, [0] * 51, "it must have 1 to 50 tokens, not 51"),
        (False, [4, 5], "token id 5 is outside the vocabulary: ids are 0 to 4"),
        (False, np.zeros((2, 3)), "it must be tokens"),
        (True, [0, 1], "it must be numbers"),
        (True, np.zeros((2, 4)), "it must have vectors of 3 numbers"),
        (True, np.full((1, 3), np.nan), "it holds NaN or infinite numbers"),
    ],
)
def test_what_cannot_be_classified(numeric: bool, row: list[int], message: str) -> None:
    with (
        classifier(numeric=numeric, started=False, max_input_tokens=50) as made,
        pytest.raises(InvalidRequest, match=message),
    ):
        made.check(row)


@pytest.mark.parametrize("count", [0, 5])
def test_none_and_too_many(count: int) -> None:
    with (
        classifier(started=False, max_batch_sequences=4) as made,
        pytest.raises(InvalidRequest, match=f"one call takes 1 to 4 sequences, not {count}"),
    ):
        made.submit([[0]] * count)


def test_a_long_sequence_is_not_overtaken_for_ever() -> None:
    """Short ones go on coming: each finished batch brings as many again."""
    with classifier(started=False, batch_tokens=40) as made:
        long = made.submit([[0] * 200])
        left = 20

        def refill(_: object) -> None:
            nonlocal left
            left -= 1
            if left and not long.done():
                made.submit([[0] * 2] * 20).add_done_callback(refill)

        made.submit([[0] * 2] * 20).add_done_callback(refill)
        made.start()
        long.result(PATIENCE)
        assert left > 15
        made.stop()


def test_a_failing_batch_fails_its_callers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with classifier() as made:
        with monkeypatch.context() as patch:
            patch.setattr(made.artifact.model, "forward", fail)
            with pytest.raises(RuntimeError, match="out of memory"):
                made.submit(ROWS).result(PATIENCE)
        assert made.submit(ROWS).result(PATIENCE)[9].shape == (4,)


def test_a_caller_that_left_disturbs_nobody() -> None:
    with classifier(started=False) as made:
        left, stayed = made.submit(ROWS), made.submit(ROWS)
        assert left.cancel()
        made.start()
        assert stayed.result(PATIENCE)[9].shape == (4,)
        made.stop()


def test_too_many_sequences_wait() -> None:
    with classifier(started=False, max_waiting=5) as made:
        made.submit(ROWS)
        with pytest.raises(Exhausted, match="10 sequences wait already"):
            made.submit(ROWS)


def test_stopping_refuses_what_waits() -> None:
    with classifier(started=False) as made:
        waiting = made.submit(ROWS)
        made._stopping = True
        made.start()
        with pytest.raises(Draining):
            waiting.result(PATIENCE)
        with pytest.raises(Draining):
            made.submit(ROWS)
