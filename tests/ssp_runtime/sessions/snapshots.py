"""Snapshots that say which they are."""

import torch

from ssp_runtime.sessions import snapshot_file
from ssp_runtime.sessions.stores import Store


def snapshot(number: int, size: int = 8) -> bytes:
    return snapshot_file.pack({"number": number}, {"state": torch.full((size,), number, dtype=torch.float32)})


def number_of(data: bytes) -> int:
    header, tensors = snapshot_file.unpack(data)
    assert (tensors["state"] == header["number"]).all()
    return int(header["number"])


def contents(store: Store) -> dict[str, int]:
    """The number of each snapshot there is."""
    loaded = {key: store.load(key) for key in store.keys()}  # noqa: SIM118  # a store is no dictionary
    return {key: number_of(stored.data) for key, stored in loaded.items() if stored is not None}
