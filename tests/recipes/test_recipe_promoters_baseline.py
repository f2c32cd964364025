import dataclasses

import numpy as np
import pytest

from recipes.promoters import baseline
from recipes.promoters.data import Promoters, encode


@pytest.fixture
def marked() -> Promoters:
    """Random sequences of 60 bases, the positives with TATA at a fixed place."""
    digits = np.random.default_rng(0).integers(0, 4, (200, 60))
    labels = np.arange(200) % 2
    digits[labels == 1, 30:34] = [3, 0, 3, 0]
    sequences = tuple("".join("ACGT"[digit] for digit in row) for row in digits)
    return Promoters(names=sequences, sequences=sequences, labels=labels, fold=np.arange(200) // 2 % 5)


def test_kmers_are_counted_wherever_they_are() -> None:
    (counts,) = baseline.count_kmers(encode(("AAAAC",)))
    assert counts.shape == (64 + 256,)
    assert {int(code): counts[code] for code in np.flatnonzero(counts)} == {0: 2, 1: 1, 64: 1, 65: 1}


def test_reverse_complements_are_involutions() -> None:
    reverse = baseline.reverse_complements(3)
    assert reverse[reverse].tolist() == list(range(64))
    assert reverse[0b000001] == 0b101111


def test_both_strands_have_the_same_counts() -> None:
    forward, backward = baseline.count_kmers_on_both_strands(encode(("AACGTTGCAT", "ATGCAACGTT")))
    assert forward.tolist() == backward.tolist()
    assert len(forward) == 32 + 136


def test_one_hot_marks_one_base_at_each_position() -> None:
    assert baseline.one_hot(encode(("AT",))).tolist() == [[1, 0, 0, 0, 0, 0, 0, 1]]


def test_windows_count_every_2_mer_once(marked: Promoters) -> None:
    features = baseline.positions_and_neighbours(encode(marked.sequences))
    assert features.shape == (200, 60 + 3 * 16)
    assert (features[:, 60:].sum(axis=1) == 59).all()


@pytest.mark.parametrize("candidate", baseline.BASELINES, ids=lambda candidate: candidate.name)
def test_scores_are_of_the_test_folds(marked: Promoters, candidate: baseline.Baseline) -> None:
    result = baseline.score(candidate, marked)
    assert len(result.accuracies) == len(result.mccs) == 5
    assert result.accuracy == pytest.approx(np.mean(result.accuracies))
    assert result.accuracy > 0.6
    assert -1 <= result.mcc <= 1


def test_labels_of_the_test_fold_are_never_seen(marked: Promoters) -> None:
    swapped = dataclasses.replace(marked, labels=np.where(marked.fold == 0, 1 - marked.labels, marked.labels))
    honest, wrong = (baseline.score(baseline.BASELINES[2], each).accuracies[0] for each in (marked, swapped))
    assert honest > 0.9
    assert wrong == pytest.approx(1 - honest)


@pytest.mark.slow
def test_kmer_regression_on_the_published_data(promoters: Promoters) -> None:
    result = baseline.score(baseline.BASELINES[0], promoters)
    assert result.accuracy == pytest.approx(0.9072, abs=0.002)
    assert result.mcc == pytest.approx(0.7949, abs=0.004)
