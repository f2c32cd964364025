"""What a model of the corpus has to beat: back-off Markov models and xz, in bits per byte of the held-out files.

The Markov models learn from the training files alone. They predict every held-out file from an empty history, from its
first byte to the separator that ends it; separators count as bytes, for xz too. xz adapts as it compresses.

A model of order n interpolates all orders k <= n (P_-1 is uniform over the 256 bytes):

    P_k(w | h) = (kept(hw) + reserved(h) P_{k-1}(w | h')) / (kept(h) + reserved(h))

where h is the last k bytes and h' the last k - 1; a context's kept and reserved counts are sums over the bytes seen
after it. What is kept of a count and what is reserved for other bytes is the smoothing:

- Witten-Bell: all is kept, one count is reserved for every distinct byte (I. H. Witten, T. C. Bell: The zero-frequency
  problem, IEEE Trans. Inf. Theory 37, 1991, method C, which is also the escape of PPMC).
- Modified Kneser-Ney: a discount is moved from kept to reserved, and the orders below n count distinct bytes to the
  left in place of occurrences (S. F. Chen, J. Goodman: An empirical study of smoothing techniques for language
  modeling, Harvard TR-10-98, 1998, section 3).
"""

import dataclasses
import itertools
import json
import lzma
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro

from recipes.python_stdlib.corpus import SEPARATOR, Corpus, load

MAX_ORDER = 7
"""A context and the byte after it are one 64-bit code: the last byte lowest."""

ORDERS = (3, 5, 7)

XZ_PRESET = 9
"""As in ``xz -9``: its 64 MiB window holds the whole corpus."""

Codes = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """How a Markov model gives probability to what it has not seen.

    Attributes:
        name: As in the table.
        split: Splits the counts of an order into (kept, reserved).
        continuations: Whether orders below the highest count distinct bytes to the left in place of occurrences.
    """

    name: str
    split: Callable[[Counts], tuple[Reals, Reals]]
    continuations: bool


@dataclass(frozen=True, kw_only=True)
class Order:
    """The statistics of one context length.

    Attributes:
        length: Number of bytes in a context.
        grams: Codes of the contexts, each with a byte that followed it; ascending.
        kept: What is kept of each gram's count.
        contexts: Codes of the contexts; ascending.
        kept_total: Sum of the kept counts of each context.
        reserved: Count that each context leaves to the order below.
    """

    length: int
    grams: Codes
    kept: Reals
    contexts: Codes
    kept_total: Reals
    reserved: Reals

    def interpolate(self, codes: Codes, lower: Reals) -> Reals:
        """Probabilities of these codes' last bytes, given those under the order below."""
        codes = _suffixes(codes, self.length)
        contexts = codes >> np.uint64(8)
        kept = _look_up(self.grams, self.kept, codes)
        reserved = _look_up(self.contexts, self.reserved, contexts)
        total = _look_up(self.contexts, self.kept_total, contexts) + reserved
        return np.where(total > 0, kept + reserved * lower, lower) / np.where(total > 0, total, 1)


@dataclass(frozen=True, kw_only=True)
class Markov:
    """A byte Markov model: its orders from 0 upwards."""

    orders: tuple[Order, ...]

    def probabilities(self, text: bytes) -> Reals:
        """The probability of every byte of ``text``: non-empty files, each ended by a separator."""
        codes = encode(text, len(self.orders) - 1)
        probabilities = np.full(len(codes), 1 / 256)
        for order in self.orders:
            probabilities = order.interpolate(codes, probabilities)
        return probabilities

    def bits_per_byte(self, text: bytes) -> float:
        """Mean code length of ``text``, in bits per byte."""
        return float(-np.log2(self.probabilities(text)).mean())


@dataclass(frozen=True, kw_only=True)
class Score:
    """A baseline's result: bits per byte of the held-out files, and the seconds it took."""

    name: str
    bits_per_byte: float
    seconds: float


def keep_all(counts: Counts) -> tuple[Reals, Reals]:
    """Witten-Bell: keeps the counts, reserves one for each distinct byte."""
    return counts.astype(np.float64), np.ones(len(counts))


def discount(counts: Counts) -> tuple[Reals, Reals]:
    """Modified Kneser-Ney: reserves a discount for counts of 1, of 2 and of 3 or more (Chen & Goodman, equation 26).

    The discounts come from the numbers of grams seen once to four times; where a text is so small that one of these is
    zero, every discount is 1/2. They are bounded from below so that no context gives an unseen byte probability zero.
    """
    seen = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    discounts = np.full(3, 0.5)
    if seen.all():
        ratio = seen[0] / (seen[0] + 2 * seen[1])
        times = np.arange(1, 4)
        discounts = np.clip(times - (times + 1) * ratio * seen[1:] / seen[:-1], 0.05, times)
    reserved = discounts[np.minimum(counts, 3) - 1]
    return counts - reserved, reserved


WITTEN_BELL = Smoothing(name="Witten-Bell", split=keep_all, continuations=False)
KNESER_NEY = Smoothing(name="modified Kneser-Ney", split=discount, continuations=True)


def encode(text: bytes, order: int) -> Codes:
    """Codes of all bytes of ``text`` with the ``order`` bytes before them; before a file there are separators only."""
    assert 1 <= order <= MAX_ORDER, f"order {order} is not in 1..{MAX_ORDER}"
    padding = SEPARATOR * order
    stream = np.frombuffer(padding + text.replace(SEPARATOR, padding), np.uint8)
    codes = np.zeros(len(stream) - order, np.uint64)
    for offset in range(order + 1):
        codes = (codes << np.uint64(8)) | stream[offset : offset + len(codes)]
    is_padding = (stream[order:] == 0) & (stream[order - 1 : -1] == 0)
    predicted: Codes = codes[~is_padding]
    return predicted


def fit(text: bytes, order: int, smoothing: Smoothing) -> Markov:
    """Learns a model of the given order from ``text``: non-empty files, each ended by a separator."""
    codes = encode(text, order)
    orders = []
    for length in range(order, -1, -1):
        grams, counts = np.unique(_suffixes(codes, length), return_counts=True)
        orders.append(_order(length, grams, counts, smoothing))
        if smoothing.continuations:
            codes = grams
    return Markov(orders=tuple(reversed(orders)))


def xz_bytes(data: bytes) -> int:
    """Size of ``data`` after ``xz -9``, in bytes."""
    return len(lzma.compress(data, preset=XZ_PRESET))


def markov_bits(corpus: Corpus, order: int, smoothing: Smoothing) -> float:
    """Bits per byte of a Markov model that learned from the training files."""
    return fit(corpus.train, order, smoothing).bits_per_byte(corpus.heldout)


def xz_bits(corpus: Corpus) -> float:
    """Bits per byte of the held-out files compressed on their own."""
    return 8 * xz_bytes(corpus.heldout) / len(corpus.heldout)


def conditional_xz_bits(corpus: Corpus) -> float:
    """Bits per byte that the held-out files add to the compressed training files."""
    added = xz_bytes(corpus.train + corpus.heldout) - xz_bytes(corpus.train)
    return 8 * added / len(corpus.heldout)


def scores(corpus: Corpus) -> Iterator[Score]:
    """Scores one baseline after another."""
    for smoothing, order in itertools.product((WITTEN_BELL, KNESER_NEY), ORDERS):
        yield _score(
            f"order-{order} Markov, {smoothing.name}", corpus, partial(markov_bits, order=order, smoothing=smoothing)
        )
    yield _score("xz -9, held-out files alone", corpus, xz_bits)
    yield _score("xz -9, after the training files", corpus, conditional_xz_bits)


def main(json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None) -> None:
    """Measures the baselines of the standard library corpus and prints them as a table.

    Args:
        json_file: Where to write the results too.
    """
    corpus = load()
    print(f"Python {corpus.python_version} standard library, {corpus.num_files} files, checksum {corpus.checksum}")
    print(f"{len(corpus.train):,} training bytes, {len(corpus.heldout):,} held-out bytes\n")
    print(f"{'baseline':<40}{'bits per byte':>14}{'seconds':>9}")
    results = []
    for score in scores(corpus):
        print(f"{score.name:<40}{score.bits_per_byte:>14.4f}{score.seconds:>9.1f}", flush=True)
        results.append(dataclasses.asdict(score))
    if json_file is not None:
        summary = {
            "python_version": corpus.python_version,
            "checksum": corpus.checksum,
            "num_files": corpus.num_files,
            "train_bytes": len(corpus.train),
            "heldout_bytes": len(corpus.heldout),
            "baselines": results,
        }
        json_file.write_text(json.dumps(summary, indent=2) + "\n")


def _score(name: str, corpus: Corpus, measure: Callable[[Corpus], float]) -> Score:
    started = time.perf_counter()
    bits_per_byte = measure(corpus)
    return Score(name=name, bits_per_byte=bits_per_byte, seconds=time.perf_counter() - started)


def _order(length: int, grams: Codes, counts: Counts, smoothing: Smoothing) -> Order:
    contexts, starts = np.unique(grams >> np.uint64(8), return_index=True)
    kept, reserved = smoothing.split(counts)
    return Order(
        length=length,
        grams=grams,
        kept=kept,
        contexts=contexts,
        kept_total=np.add.reduceat(kept, starts),
        reserved=np.add.reduceat(reserved, starts),
    )


def _suffixes(codes: Codes, length: int) -> Codes:
    """The codes with contexts cut to their last ``length`` bytes."""
    return codes & np.uint64(256 ** (length + 1) - 1)


def _look_up(keys: Codes, values: Reals, wanted: Codes) -> Reals:
    """The value of each wanted key, 0 where there is none; the keys ascend."""
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[found] == wanted, values[found], 0.0)


if __name__ == "__main__":
    tyro.cli(main)
