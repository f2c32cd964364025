"""What a promoter model has to beat: logistic regression on counts of 3-mers and 4-mers, and what else is classical.

Features of the regressions are standardised. Their C is chosen within the training folds, by cross-validation over
these very folds, so sequences that overlap are never on both sides there either.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tyro
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, matthews_corrcoef
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from recipes.promoters.data import BASES, NUM_FOLDS, PromoterDataError, Promoters, encode, load

KMER_LENGTHS = (3, 4)

WINDOW_BASES = 25
"""Length of the windows in which 2-mers are counted: the TATA box, 33 to 26 bases before the start, lies within one."""

INVERSE_REGULARISATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""The values of C to choose from."""

MAX_ITERATIONS = 3000
NUM_TREES = 200
SEED = 0

Bases = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

Fit = Callable[[Features, Labels, Labels], Any]
"""Learns a scikit-learn estimator from features, labels and the folds that these rows are in."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Features of sequences and the way to learn from them."""

    name: str
    features: Callable[[Bases], Features]
    fit: Fit


@dataclass(frozen=True, kw_only=True)
class Score:
    """A baseline's results: accuracy (0..1) and Matthews correlation coefficient (-1..1) on each test fold."""

    name: str
    num_features: int
    accuracies: tuple[float, ...]
    mccs: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean accuracy of the folds."""
        return float(np.mean(self.accuracies))

    @property
    def mcc(self) -> float:
        """Mean Matthews correlation coefficient of the folds."""
        return float(np.mean(self.mccs))


def count_kmers(bases: Bases) -> Features:
    """How often each k-mer occurs in each sequence, for all lengths in ``KMER_LENGTHS``."""
    return np.hstack([_count(bases, length) for length in KMER_LENGTHS])


def count_kmers_on_both_strands(bases: Bases) -> Features:
    """Like ``count_kmers``, but a k-mer and its reverse complement are one feature."""
    blocks = []
    for length in KMER_LENGTHS:
        reverse = reverse_complements(length)
        counts = _count(bases, length)
        blocks.append((counts + counts[:, reverse])[:, np.arange(len(reverse)) <= reverse])
    return np.hstack(blocks)


def one_hot(bases: Bases) -> Features:
    """Which base is where: four features for each position."""
    return np.eye(len(BASES))[bases].reshape(len(bases), -1)


def one_hot_and_kmers(bases: Bases) -> Features:
    """Which base is where, and how often each k-mer occurs anywhere."""
    return np.hstack([one_hot(bases), count_kmers(bases)])


def positions_and_neighbours(bases: Bases) -> Features:
    """The base at each position, as its index, and the counts of 2-mers in each window of ``WINDOW_BASES``."""
    starts = range(0, bases.shape[1] - 1, WINDOW_BASES)
    windows = [_count(bases[:, start : start + WINDOW_BASES + 1], 2) for start in starts]
    return np.hstack([bases.astype(np.float64), *windows])


def reverse_complements(length: int) -> npt.NDArray[np.int64]:
    """The code of the reverse complement of each k-mer of this length, in order of the k-mers' codes."""
    digits = np.stack(np.unravel_index(np.arange(4**length), (4,) * length))
    return _codes(3 - digits[::-1].T, length)[:, 0]


def regress(features: Features, labels: Labels, fold: Labels) -> Any:
    """Logistic regression; C is the best on average when each of these folds is left out in turn."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    candidates = {"logisticregression__C": list(INVERSE_REGULARISATIONS)}
    return GridSearchCV(pipeline, candidates, cv=LeaveOneGroupOut()).fit(features, labels, groups=fold)


def boost(features: Features, labels: Labels, fold: Labels) -> Any:  # noqa: ARG001 - a fit with nothing to choose
    """Gradient-boosted trees with scikit-learn's defaults."""
    return HistGradientBoostingClassifier(max_iter=NUM_TREES, random_state=SEED).fit(features, labels)


BASELINES = (
    Baseline(name="3+4-mers, logistic regression", features=count_kmers, fit=regress),
    Baseline(name="3+4-mers of both strands, logistic regression", features=count_kmers_on_both_strands, fit=regress),
    Baseline(name="positions, logistic regression", features=one_hot, fit=regress),
    Baseline(name="positions and 3+4-mers, logistic regression", features=one_hot_and_kmers, fit=regress),
    Baseline(name="positions and 2-mers by window, boosted trees", features=positions_and_neighbours, fit=boost),
)


def score(baseline: Baseline, promoters: Promoters) -> Score:
    """Tests a baseline on every fold after learning from the others.

    One thread: the problems are so small that a second one gains nothing and, on a busy machine, costs much.
    """
    features = baseline.features(encode(promoters.sequences))
    accuracies, mccs = [], []
    for test_fold in range(NUM_FOLDS):
        is_test = promoters.fold == test_fold
        with threadpool_limits(limits=1):
            estimator = baseline.fit(features[~is_test], promoters.labels[~is_test], promoters.fold[~is_test])
        predicted = estimator.predict(features[is_test])
        accuracies.append(float(accuracy_score(promoters.labels[is_test], predicted)))
        mccs.append(float(matthews_corrcoef(promoters.labels[is_test], predicted)))
    return Score(name=baseline.name, num_features=features.shape[1], accuracies=tuple(accuracies), mccs=tuple(mccs))


def main(json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None) -> None:
    """Measures the baselines of the promoter data on its five folds and prints them as tables.

    Args:
        json_file: Where to write the results too.
    """
    try:
        promoters = load()
    except PromoterDataError as error:
        raise SystemExit(str(error)) from error
    print(f"{len(promoters.labels)} sequences, of which {promoters.labels.sum()} promoters\n")
    print(f"{'baseline':<48}{'':<10}{'mean':>8}" + "".join(f"{f'fold {fold}':>8}" for fold in range(NUM_FOLDS)))
    results = []
    for result in (score(baseline, promoters) for baseline in BASELINES):
        print("\n".join(_lines(result)), flush=True)
        results.append({**dataclasses.asdict(result), "accuracy": result.accuracy, "mcc": result.mcc})
    if json_file is not None:
        summary = {"sequences": len(promoters.labels), "promoters": int(promoters.labels.sum()), "baselines": results}
        json_file.write_text(json.dumps(summary, indent=2) + "\n")


def _lines(result: Score) -> Iterator[str]:
    for name, label, mean, values in (
        (result.name, "accuracy", result.accuracy, result.accuracies),
        ("", "MCC", result.mcc, result.mccs),
    ):
        yield f"{name:<48}{label:<10}{mean:>8.4f}" + "".join(f"{value:>8.4f}" for value in values)


def _codes(bases: npt.NDArray[np.integer[Any]], length: int) -> npt.NDArray[np.int64]:
    """The code of the k-mer at each position: its bases as digits to base 4, the first the highest."""
    num_kmers = bases.shape[1] - length + 1
    codes = np.zeros((len(bases), num_kmers), np.int64)
    for offset in range(length):
        codes = 4 * codes + bases[:, offset : offset + num_kmers]
    return codes


def _count(bases: Bases, length: int) -> Features:
    """How often each k-mer of this length occurs in each sequence."""
    counts = np.zeros((len(bases), 4**length))
    np.add.at(counts, (np.arange(len(bases))[:, None], _codes(bases, length)), 1)
    return counts


if __name__ == "__main__":
    tyro.cli(main)
