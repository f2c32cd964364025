"""The file of a snapshot: safetensors, of which not one bit may change.

Its `__metadata__` begins with `format_version` and `checksum` (SHA-256 of the whole file, with zeros in the place
of the checksum's own digits), and holds the `header`, a JSON object. The same contents always give the same bytes.
"""

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ssp_runtime.errors import SnapshotCorrupt

FORMAT_VERSION = 1

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_LENGTH_BYTES = 8  # of the JSON part, which follows; then come the tensors
_ALIGNMENT = 8
_CHECKSUM_LENGTH = 64
_ZEROS = b"0" * _CHECKSUM_LENGTH
_BEGINNING = re.compile(rb'\{"__metadata__":\{"format_version":"([0-9]{1,9})","checksum":"([0-9a-f]{64})",')


def pack(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The file's bytes. The header is what JSON can hold; tensors may lie on any device, with any strides."""
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # so that each is aligned
    payload = [_bytes_of(tensors[name]) for name in names]
    offsets = accumulate(map(len, payload), initial=0)
    layout = {
        name: {"dtype": _DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": span}
        for name, span in zip(names, pairwise(offsets), strict=True)
    }
    metadata = {"format_version": str(FORMAT_VERSION), "checksum": _ZEROS.decode(), "header": _to_json(header)}
    text = json.dumps({"__metadata__": metadata, **layout}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    head = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    return b"".join([head.replace(_ZEROS, _checksum([head, *payload]), 1), *payload])


def verify(data: bytes) -> None:
    """Raises `SnapshotCorrupt` unless these are the bytes that were written."""
    match = _BEGINNING.match(data, _LENGTH_BYTES)
    if match is None:
        raise SnapshotCorrupt("this is not a snapshot, or its beginning is damaged; take another copy")
    if int(match[1]) != FORMAT_VERSION:
        message = f"the snapshot is of format version {int(match[1])}, this program reads {FORMAT_VERSION}"
        raise SnapshotCorrupt(f"{message}; export it again from this version")
    view = memoryview(data)
    begin, end = match.span(2)
    if _checksum([view[:begin], _ZEROS, view[end:]]) != match[2]:
        raise SnapshotCorrupt("the snapshot is damaged: its checksum does not match its contents; take another copy")


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors, which are the caller's own, on the CPU.

    Raises:
        SnapshotCorrupt: `verify` refuses it, or somebody made it who does not know the format.
    """
    verify(data)
    try:
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        text = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        header = json.loads(text["__metadata__"]["header"])
        tensors = load(data)
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError, SafetensorError) as error:
        raise SnapshotCorrupt("the snapshot has a right checksum but wrong contents; export it again") from error
    if not isinstance(header, dict):
        raise SnapshotCorrupt("the header of the snapshot is no JSON object; export it again")
    return header, tensors


def _to_json(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _checksum(parts: Iterable[bytes | memoryview]) -> bytes:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
