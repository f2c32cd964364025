"""The file of a snapshot: any safetensors tool reads it, and no damage passes."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor

from ssp_runtime.errors import SnapshotCorrupt
from ssp_runtime.sessions.snapshot_file import pack, unpack, verify

HEADER = {"session": "r.1", "position": 7, "nested": {"text": 'é \ud800 "0"', "list": [1, 2.5, None]}}
TENSORS = {
    "layers.0.ssm_state": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "layers.0.conv_state": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "layers.1.position": torch.tensor(2**40),
    "mask": torch.tensor([True, False, True]),
    "ids": torch.empty(0, 4, dtype=torch.int32),
}
DATA = pack(HEADER, TENSORS)
ZEROS = b"0" * 64


def assert_equal(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor), name


def test_there_and_back() -> None:
    header, tensors = unpack(DATA)
    assert header == HEADER
    assert_equal(tensors, TENSORS)
    tensors["mask"].zero_()  # the caller's own: the file stays as it is
    verify(DATA)


def test_the_library_reads_it(tmp_path: Path) -> None:
    assert_equal(load(DATA), TENSORS)
    (tmp_path / "file.safetensors").write_bytes(DATA)
    with safe_open(tmp_path / "file.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["format_version"] == "1" and '"position":7' in metadata["header"]
    blanked = DATA.replace(metadata["checksum"].encode(), ZEROS)
    assert metadata["checksum"] == sha256(blanked).hexdigest()


def test_equal_contents_are_equal_bytes() -> None:
    strided = {name: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor for name, tensor in TENSORS.items()}
    assert pack(dict(reversed(HEADER.items())), dict(reversed(strided.items()))) == DATA


def test_wide_tensors_are_aligned() -> None:
    tensors = {"a": torch.tensor([1, 2, 3], dtype=torch.uint8), "b": torch.tensor([1.5], dtype=torch.float64)}
    data = pack({}, tensors)
    assert data.index(tensors["b"].numpy().tobytes()) % 8 == 0


def test_every_flipped_bit_is_noticed() -> None:
    for place in range(len(DATA)):
        for bit in range(8):
            damaged = bytearray(DATA)
            damaged[place] ^= 1 << bit
            with pytest.raises(SnapshotCorrupt):
                verify(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    for length in range(len(DATA)):
        with pytest.raises(SnapshotCorrupt):
            unpack(DATA[:length])
    with pytest.raises(SnapshotCorrupt):
        unpack(DATA + b"\0")


def test_another_format_version_is_named() -> None:
    with pytest.raises(SnapshotCorrupt, match="of format version 2, this program reads 1"):
        verify(DATA.replace(b'"format_version":"1"', b'"format_version":"2"'))


@example(DATA[:8])
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: DATA[:120] + tail))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotCorrupt):
        unpack(data)


def forged(text: bytes, payload: bytes) -> bytes:
    """A file of any contents whose checksum is right."""
    head = len(text).to_bytes(8, "little") + text
    checksum = sha256(head + payload).hexdigest().encode()
    return head.replace(ZEROS, checksum, 1) + payload


BEGINNING = b'{"__metadata__":{"format_version":"1","checksum":"' + ZEROS + b'",'
LAYOUT = b'"header":"{}"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


def test_a_forgery_in_good_order_passes() -> None:
    assert unpack(forged(BEGINNING + LAYOUT, bytes(8)))[1]["a"].shape == (2,)


@pytest.mark.parametrize("header", [b"[]", b"1", b"{", b'{\\"a\\":' + b"9" * 5000 + b"}", b"[" * 100_000])
def test_forged_headers_are_refused(header: bytes) -> None:
    with pytest.raises(SnapshotCorrupt):
        unpack(forged(BEGINNING + b'"header":"' + header + b'"}}', b""))


@pytest.mark.parametrize("dtype", ["F32", "F64", "F4", "F6_E2M3", "F8_E8M0", "X9", ""])
@pytest.mark.parametrize("shape", ["[3]", "[-1]", "[1.5]", "null", "[18446744073709551615,2]", "[1e400]", "[2.0]"])
@pytest.mark.parametrize("end", [8, 9, -1, 2**64])
def test_lying_layouts_are_refused(dtype: str, shape: str, end: int) -> None:
    layout = f'"header":"{{}}"}},"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}'
    with pytest.raises(SnapshotCorrupt):
        unpack(forged(BEGINNING + layout.encode(), bytes(8)))


def test_strides_that_overflow_are_refused() -> None:
    layout = b'"header":"{}"},"a":{"dtype":"F32","shape":[0,9223372036854775807,4],"data_offsets":[0,0]}}'
    with pytest.raises(SnapshotCorrupt):
        unpack(forged(BEGINNING + layout, b""))


@settings(max_examples=300)
@given(st.integers(0, len(LAYOUT) - 1), st.binary(min_size=1, max_size=3), st.integers(0, 3))
def test_forged_mutations_never_raise_anything_else(place: int, replacement: bytes, dropped: int) -> None:
    text = BEGINNING + LAYOUT[:place] + replacement + LAYOUT[place + dropped :]
    try:
        unpack(forged(text, bytes(8)))
    except SnapshotCorrupt as error:
        assert "snapshot" in str(error)
