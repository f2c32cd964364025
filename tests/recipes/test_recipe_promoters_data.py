import hashlib
import io
import urllib.error
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from recipes.promoters import data

FOLDS_SHA256 = "50c122fd55aa077f700d301fdc8fbcc90cc84ec09494de1b3d984116e7d4b86b"
"""Of the folds as bytes: results are comparable only on these."""

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def random_sequences(count: int, length: int = 251) -> list[str]:
    digits = np.random.default_rng(0).integers(0, 4, (count, length))
    return ["".join("ACGT"[digit] for digit in row) for row in digits]


def reverse_complement(sequence: str) -> str:
    return sequence[::-1].translate(COMPLEMENT)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SSP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_published_sequences_without_duplicates(promoters: data.Promoters) -> None:
    assert np.bincount(promoters.labels).tolist() == [2878, 1497]
    assert len(set(promoters.sequences)) == len(promoters.sequences) == len(promoters.names) == 4375
    assert {len(sequence) for sequence in promoters.sequences} == {251}
    assert promoters.names[0].startswith("FP000001 AT1G01050_1")


def test_no_stretch_is_shared_across_folds_on_either_strand(promoters: data.Promoters) -> None:
    fold_of: dict[str, int] = {}
    for sequence, fold in zip(promoters.sequences, promoters.fold.tolist(), strict=True):
        for strand in (sequence, reverse_complement(sequence)):
            for start in range(len(strand) - 30):
                assert fold_of.setdefault(strand[start : start + 31], fold) == fold


def test_folds_are_balanced_in_size_and_in_class(promoters: data.Promoters) -> None:
    sizes = np.array([np.bincount(promoters.labels[promoters.fold == fold], minlength=2) for fold in range(5)])
    assert np.ptp(sizes, axis=0).max() <= 2
    assert np.ptp(sizes.sum(axis=1)) <= 2


def test_folds_are_the_fixed_ones(promoters: data.Promoters) -> None:
    assert hashlib.sha256(promoters.fold.astype(np.uint8).tobytes()).hexdigest() == FOLDS_SHA256
    assert np.array_equal(data.load().fold, promoters.fold)


def test_arrays_are_read_only(promoters: data.Promoters) -> None:
    with pytest.raises(ValueError, match="read-only"):
        promoters.fold[0] = 1


def test_codes_are_the_same_for_a_stretch_and_its_reverse_complement() -> None:
    (sequence,) = random_sequences(1)
    forward = data.canonical_codes((sequence,))[0]
    backward = data.canonical_codes((reverse_complement(sequence),))[0]
    assert forward.tolist() == backward[::-1].tolist()
    assert len(set(forward.tolist())) == 221


def test_codes_of_two_bases_by_hand() -> None:
    assert data.canonical_codes(("AACGT",), 2).tolist() == [[0b0000, 0b0001, 0b0110, 0b0001]]


def test_overlaps_group_by_way_of_others_and_on_either_strand() -> None:
    a, b, c, d, e = random_sequences(5)
    b = a[-31:] + b[31:]
    d = reverse_complement(b)[:31] + d[31:]
    e = c[-30:] + ("A" if c[-30] == "C" else "C") + e[31:]
    assert data.group((a, b, c, d, e)).tolist() == [0, 0, 2, 0, 4]


def test_groups_stay_whole_when_dealt() -> None:
    sequences = tuple(random_sequences(50))
    groups = np.repeat(np.arange(0, 50, 5), 5)
    labels = np.tile([0, 0, 0, 1, 1], 10)
    fold = data.deal(sequences, labels, groups)
    assert np.bincount(fold).tolist() == [10] * 5
    assert all(len(set(fold[groups == group])) == 1 for group in groups)


def test_other_letters_are_an_error() -> None:
    with pytest.raises(data.PromoterDataError, match="ACGT"):
        data.encode(("ACGN",))


def test_no_data_and_no_network_is_a_clear_error(no_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, timeout: float) -> NoReturn:
        raise urllib.error.URLError(f"no network for {url} in {timeout} s")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(data.PromoterDataError, match="set SSP_DATA to the folder that holds dna_promoters"):
        data.load()
    assert not list(no_data.iterdir())


@pytest.mark.usefixtures("no_data")
def test_a_download_is_verified_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b">x\nACGT\n"
    source = data.Source(name="x.fa", sha256=hashlib.sha256(content).hexdigest(), label=1)
    urls = []

    def serve(url: str, timeout: float) -> io.BytesIO:
        assert timeout > 0
        urls.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr("urllib.request.urlopen", serve)
    for _ in range(2):
        assert data._find(source).read_bytes() == content
    assert urls == [f"{data.SOURCE}/x.fa"]
    assert [path.name for path in data.cache_folder().iterdir()] == ["x.fa"]


def test_another_file_s_content_is_refused(no_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda _url, timeout: io.BytesIO(b"<html>"))  # noqa: ARG005
    with pytest.raises(data.PromoterDataError, match="is not the published file"):
        data.load()
    assert not data.cache_folder().exists()
    local = no_data / "data" / "dna_promoters" / data.SOURCES[0].name
    local.parent.mkdir(parents=True)
    local.write_bytes(b">x\nACGT\n")
    with pytest.raises(data.PromoterDataError, match="is not the published file"):
        data.load()
