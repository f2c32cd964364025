"""Classification over the wire: a sequence's result is its own, whatever it travels with."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ssp_client import Client, InvalidSequence, Prediction
from ssp_runtime.formats.artifact import Artifact
from tests.server.tiny_artifacts import LABELS

RANDOM = np.random.default_rng(0)
SEQUENCES = ["".join(RANDOM.choice(list("ACGTN"), length)) for length in (1, 700, 2, 3, 64, 65, 5000, 17, 1, 300)]


def logits(predictions: list[Prediction]) -> np.ndarray:
    return np.array([prediction.logits for prediction in predictions])


def test_a_sequence_alone_equals_itself_in_a_batch_and_in_this_process(client: Client, reader: Artifact) -> None:
    together = client.classify(SEQUENCES)
    alone = [client.classify([sequence])[0] for sequence in SEQUENCES]
    assert np.abs(logits(together) - logits(alone)).max() < 1e-5
    with torch.inference_mode():
        encoded = ["ACGTN".index(letter) for letter in SEQUENCES[1]]
        expected = reader.classifier(torch.tensor([encoded]))[0].numpy()
    assert np.abs(logits(together)[1] - expected).max() < 1e-5


def test_predictions(client: Client) -> None:
    for sequence, made in zip(SEQUENCES, client.classify(SEQUENCES), strict=True):
        weights = np.exp(np.array(made.logits) - max(made.logits))
        assert made.labels == LABELS and made.label == LABELS[int(np.argmax(made.logits))]
        assert np.allclose(made.probabilities, weights / weights.sum(), atol=1e-6)
        assert made.num_tokens == len(sequence)


def test_text_and_token_ids_and_either_case_are_the_same(client: Client) -> None:
    text, lower, ids = client.classify(["GATTACA", "gattaca", [2, 0, 3, 3, 0, 1, 0]])
    assert text.logits == lower.logits == ids.logits


def test_thousands_of_sequences_come_back_in_order(client: Client) -> None:
    lengths = RANDOM.integers(1, 60, 3000)
    taken = 0

    def sequences() -> Iterator[str]:
        nonlocal taken
        for length in lengths:
            taken += 1
            yield "ACGTN"[length % 5] * int(length)

    outcomes = client.classify_many(sequences(), batch_size=250, look_ahead=750)
    first = next(outcomes)
    assert taken < 3000, "it read everything before it gave anything"
    assert [made.num_tokens for made in (first, *outcomes)] == lengths.tolist()


def test_one_bad_sequence_among_many_is_found(client: Client) -> None:
    sequences = [*["ACGT"] * 40, "ACGU", *["GG"] * 20]
    with pytest.raises(InvalidSequence, match=r"sequence 40: .*letter 'U' at position 3") as refused:
        client.classify(sequences)
    assert refused.value.index == 40
    outcomes = list(client.classify_many(sequences, return_exceptions=True))
    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, InvalidSequence)] == [40]
