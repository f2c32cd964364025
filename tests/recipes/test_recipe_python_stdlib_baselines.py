import lzma

import numpy as np
import pytest

from recipes.python_stdlib import baselines
from recipes.python_stdlib.baselines import KNESER_NEY, WITTEN_BELL, Smoothing
from recipes.python_stdlib.corpus import Corpus

SMOOTHINGS = pytest.mark.parametrize("smoothing", [WITTEN_BELL, KNESER_NEY], ids=lambda smoothing: smoothing.name)


def test_codes_hold_a_byte_below_its_context_and_files_start_afresh() -> None:
    codes = baselines.encode(b"ab\0c\0", 2)
    expected = [b"\0\0a", b"\0ab", b"ab\0", b"\0\0c", b"\0c\0"]
    assert [int(code).to_bytes(3, "big") for code in codes] == expected


def test_witten_bell_by_hand() -> None:
    lowest = (1 + 3 / 256) / 6
    probabilities = baselines.fit(b"ab\0", 1, WITTEN_BELL).probabilities(b"ab\0")
    assert probabilities == pytest.approx([(1 + lowest) / 2] * 3, rel=1e-12)


def test_kneser_ney_counts_distinct_left_neighbours_by_hand() -> None:
    probabilities = baselines.fit(b"aaab\0", 1, KNESER_NEY).probabilities(b"ab\0")
    escape = (3 * 0.5 / 256) / 4
    lowest_a, lowest_b, lowest_end = 1.5 / 4 + escape, 0.5 / 4 + escape, 0.5 / 4 + escape
    assert probabilities == pytest.approx(
        [0.5 + 0.5 * lowest_a, (0.5 + 1.0 * lowest_b) / 3, 0.5 + 0.5 * lowest_end], rel=1e-12
    )


def test_discounts_follow_the_counts_of_counts() -> None:
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])
    kept, reserved = baselines.discount(counts)
    assert reserved.tolist() == [0.5, 0.5, 0.5, 0.5, 1.25, 1.25, 1.0, 1.0, 1.0]
    assert (kept + reserved).tolist() == counts.tolist()


@SMOOTHINGS
@pytest.mark.parametrize("order", [1, 3, 5, 7])
def test_probabilities_of_all_bytes_sum_to_one(stdlib: Corpus, smoothing: Smoothing, order: int) -> None:
    model = baselines.fit(stdlib.heldout[:20_000], order, smoothing)
    for context in (b"import", b"xq", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9"):
        texts = b"".join(context + bytes([last]) + b"\0" for last in range(1, 256)) + context + b"\0"
        probabilities = model.probabilities(texts)
        following = probabilities[len(context) :: len(context) + 2]
        assert len(following) == 256
        assert following.sum() == pytest.approx(1, abs=1e-12)
        assert (following > 0).all()


@SMOOTHINGS
def test_longer_contexts_help_on_source_code(stdlib: Corpus, smoothing: Smoothing) -> None:
    bits = [baselines.fit(stdlib.train[:500_000], n, smoothing).bits_per_byte(stdlib.heldout) for n in (1, 2, 3)]
    assert 1.5 < bits[2] < bits[1] < bits[0] < 5


def test_xz_is_the_plain_format_at_preset_nine(stdlib: Corpus) -> None:
    sample = stdlib.heldout[:100_000]
    assert baselines.xz_bytes(sample) == len(lzma.compress(sample, format=lzma.FORMAT_XZ, preset=9))
    assert baselines.xz_bytes(sample + sample) < baselines.xz_bytes(sample) + 1_000


@pytest.mark.parametrize("order", [0, 8])
def test_orders_that_no_code_holds_are_refused(order: int) -> None:
    with pytest.raises(AssertionError, match="order"):
        baselines.encode(b"a\0", order)
