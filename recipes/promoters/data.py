"""Arabidopsis TATA promoters and stretches of genes that are no promoters, in five fixed folds.

The data: R. Kh. Umarov, V. V. Solovyev: Recognition of prokaryotic and eukaryotic promoters using convolutional deep
learning neural networks, PLoS ONE 12(2), 2017, e0171410. 251 bases each: promoters (from EPDnew) run from 200 bases
before the start of transcription to 50 after it, the others are random stretches of genes after the first exon.

Some sequences overlap: sequences that share a stretch of 31 bases, on either strand, are always in the same fold. The
other strand matters: the 4,375 distinct sequences are 4,244 groups by their own strand and 4,236 by both.
"""

import hashlib
import http.client
import os
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import dnaio
import numpy as np
import numpy.typing as npt

NUM_FOLDS = 5

SHARED_LENGTH = 31
"""Sequences that share this many bases in a row, on either strand, stay together; a code of so many fits 64 bits."""

SOURCE = "https://raw.githubusercontent.com/solovictor/CNNPromoterData/b4d2949e9bc5206f3049b35a488b036125ccc653"

DOWNLOAD_TIMEOUT_S = 30.0

BASES = "ACGT"
"""In this order a base's complement is 3 minus its index."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A FASTA file of one class: its name, the SHA-256 of its content (hex), and its label."""

    name: str
    sha256: str
    label: int


SOURCES = (
    Source(
        name="Arabidopsis_tata.fa",
        sha256="2beaa31c2797e7f8d193b6015b7239a89509341f59dde57d904d8664e492901b",
        label=1,
    ),
    Source(
        name="Arabidopsis_non_prom.fa",
        sha256="1ab75553cdbf99d54e56928a56b3f35eb14a5f3bbb31bba7c1102b406a615c90",
        label=0,
    ),
)


class PromoterDataError(RuntimeError):
    """The data cannot be had, or is not the published data."""


@dataclass(frozen=True, kw_only=True)
class Promoters:
    """Distinct sequences in the order of the files, promoters first.

    Attributes:
        names: FASTA headers; those of the negatives are not unique.
        sequences: 251 letters of ACGT each.
        labels: 1 for a promoter, 0 for anything else; int64, read-only.
        fold: The fold that tests each sequence, in 0..4; int64, read-only.
    """

    names: tuple[str, ...]
    sequences: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]


def load() -> Promoters:
    """Reads the data from ``local_folder()``, or, where it is not there, downloads it into ``cache_folder()``.

    Raises:
        PromoterDataError: A file cannot be downloaded, or its content is not the published one.
    """
    names: dict[str, str] = {}
    labels: dict[str, int] = {}
    for source in SOURCES:
        with dnaio.open(_find(source)) as records:
            for record in records:
                sequence = record.sequence.upper()
                if labels.setdefault(sequence, source.label) != source.label:
                    raise PromoterDataError(f"{record.name} in {source.name} is in the other class too")
                names.setdefault(sequence, record.name)
    sequences = tuple(names)
    label = np.array(list(labels.values()), np.int64)
    fold = deal(sequences, label, group(sequences))
    label.flags.writeable = fold.flags.writeable = False
    return Promoters(names=tuple(names.values()), sequences=sequences, labels=label, fold=fold)


def local_folder() -> Path:
    """``$SSP_DATA/dna_promoters``; without that variable, ``../shared/data`` seen from the project's root."""
    project = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("SSP_DATA") or project.parent / "shared" / "data") / "dna_promoters"


def cache_folder() -> Path:
    """Where downloads are kept: ``ssp/dna_promoters`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssp" / "dna_promoters"


def encode(sequences: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """The index of each base in ``BASES``, one row for each of the sequences, which must be of one length."""
    index = np.full(256, len(BASES), np.uint8)
    index[list(BASES.encode())] = np.arange(len(BASES))
    encoded: npt.NDArray[np.uint8] = index[np.frombuffer("".join(sequences).encode(), np.uint8)]
    if encoded.max() == len(BASES):
        raise PromoterDataError(f"a sequence has a letter outside {BASES}")
    return encoded.reshape(len(sequences), -1)


def canonical_codes(sequences: tuple[str, ...], length: int = SHARED_LENGTH) -> npt.NDArray[np.uint64]:
    """A code for each stretch of ``length`` <= 31 bases, the same for a stretch and its reverse complement.

    Returns:
        One row for each sequence, one column for each stretch.
    """
    bases = encode(sequences).astype(np.uint64)
    num_stretches = bases.shape[1] - length + 1
    forward = np.zeros((len(bases), num_stretches), np.uint64)
    reverse = np.zeros_like(forward)
    for offset in range(length):
        base = bases[:, offset : offset + num_stretches]
        forward |= base << np.uint64(2 * (length - 1 - offset))
        reverse |= (np.uint64(3) - base) << np.uint64(2 * offset)
    return np.minimum(forward, reverse)


def group(sequences: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Groups sequences that share a stretch, directly or by way of others.

    Returns:
        For each sequence, the index of the first one in its group.
    """
    codes = canonical_codes(sequences)
    rows = np.repeat(np.arange(len(codes)), codes.shape[1])
    order = np.argsort(codes, axis=None, kind="stable")
    ordered, rows = codes.reshape(-1)[order], rows[order]
    is_shared = (ordered[1:] == ordered[:-1]) & (rows[1:] != rows[:-1])
    pairs = np.unique(np.stack([rows[:-1][is_shared], rows[1:][is_shared]], axis=1), axis=0)
    first = list(range(len(sequences)))
    for a, b in pairs.tolist():
        root_a, root_b = _root(first, a), _root(first, b)
        first[max(root_a, root_b)] = min(root_a, root_b)
    return np.array([_root(first, row) for row in range(len(sequences))], np.int64)


def deal(
    sequences: tuple[str, ...], labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Deals groups to folds, the largest first, each to the fold that has the least of the group's classes.

    Groups of one size come in the order of the SHA-256 of their first sequence, so the folds depend on no generator of
    random numbers.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, first in enumerate(groups.tolist()):
        members[first].append(row)
    in_order = sorted(members.values(), key=lambda rows: (-len(rows), _sha256(sequences[rows[0]].encode())))
    class_sizes = np.bincount(labels, minlength=2)
    dealt = np.zeros((NUM_FOLDS, 2), np.int64)
    fold = np.zeros(len(sequences), np.int64)
    for rows in in_order:
        added = np.bincount(labels[rows], minlength=2)
        crowding = (((dealt + added) ** 2 - dealt**2) / class_sizes**2).sum(axis=1)
        chosen = int(np.argmin(crowding))
        dealt[chosen] += added
        fold[rows] = chosen
    return fold


def _find(source: Source) -> Path:
    """The verified file, downloaded where it is neither in the local folder nor in the cache."""
    local, cached = local_folder() / source.name, cache_folder() / source.name
    path = local if local.exists() else cached
    if not path.exists():
        _download(source, path)
    if _sha256(path.read_bytes()) != source.sha256:
        raise PromoterDataError(f"{path} is not the published file: its SHA-256 is not {source.sha256}")
    return path


def _download(source: Source, path: Path) -> None:
    url = f"{SOURCE}/{source.name}"
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise PromoterDataError(
            f"{source.name} is not in {local_folder()} and {url} cannot be downloaded ({error}): "
            f"download it elsewhere and set SSP_DATA to the folder that holds dna_promoters/{source.name}"
        ) from error
    if _sha256(content) != source.sha256:
        raise PromoterDataError(f"{url} is not the published file: its SHA-256 is not {source.sha256}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def _root(first: list[int], row: int) -> int:
    """The representative of a row's group; halves the path to it."""
    while first[row] != row:
        first[row] = first[first[row]]
        row = first[row]
    return row


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
