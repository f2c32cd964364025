"""Where states live while the model computes on them.

One row of bytes a slot; each tensor of the state is a strided view over all rows, so that moving a session's whole
state is one copy, whatever the model. Slots lie in three zones, in this order: running (what a step advances: always a
contiguous prefix, so that a step neither gathers nor scatters), resting (states of idle sessions), free (initial
states).
"""

import math
from collections.abc import Hashable

import torch
from torch import Tensor

from ssp_runtime.state import State, StateSpec

_ALIGNMENT = 64  # bytes


class PoolFull(Exception):
    """No slot is free and no idle session can be spilled."""


class StatePool:
    """`num_slots` states of `spec`. An owner is any hashable; it holds at most one slot, whose number may change.

    Owners that are not in the pool keep their row as `Tensor` of bytes, taken by `spill` and put back by `place`.
    """

    def __init__(
        self, spec: StateSpec, num_slots: int, activations: torch.dtype, device: torch.device | None = None
    ) -> None:
        if num_slots < 1:
            raise ValueError(f"a pool needs at least one slot, not {num_slots}")
        device = device or torch.device("cpu")
        self.num_slots, self.num_running = num_slots, 0
        self._owners: list[Hashable] = []  # of the slots in use, in slot order
        self._slots: dict[Hashable, int] = {}
        self._spec, self._activations = spec, activations
        self._offsets, width = _layout(spec, activations)
        self._initial = torch.zeros(1, width, dtype=torch.uint8, device=device)
        for name, view in _views(self._initial, spec, self._offsets, activations).items():
            view.copy_(spec[name].initial(1, activations, device))
        self._rows = self._initial.repeat(num_slots, 1)
        self._tensors = _views(self._rows, spec, self._offsets, activations)
        self._first: tuple[int, State] = (0, self._view(0, 0))

    @property
    def row_bytes(self) -> int:
        return self._rows.shape[1]

    @property
    def num_used(self) -> int:
        return len(self._owners)

    def __contains__(self, owner: Hashable) -> bool:
        return owner in self._slots

    def is_running(self, owner: Hashable) -> bool:
        return self._slots.get(owner, self.num_slots) < self.num_running

    def running(self) -> State:
        """Views of the running rows, in slot order; a step with `out` writes through them."""
        return self.first(self.num_running)

    def first(self, count: int) -> State:
        """Views of the first rows; of those that are free anything may be made."""
        if self._first[0] != count:
            self._first = count, self._view(0, count)
        return self._first[1]

    def owners(self) -> list[Hashable]:
        """All owners, in slot order."""
        return list(self._owners)

    def running_owners(self) -> list[Hashable]:
        return self._owners[: self.num_running]

    def row(self, owner: Hashable) -> State:
        """Views of one row, batch dimension 1."""
        slot = self._slots[owner]
        return self._view(slot, slot + 1)

    def place(self, owner: Hashable, row: Tensor | None = None) -> None:
        """Gives the owner a slot in the resting zone, in the initial state or in that of a spilled row.

        Raises:
            PoolFull: spill or release another first.
        """
        assert owner not in self._slots
        if self.num_used == self.num_slots:
            raise PoolFull
        slot = len(self._owners)
        self._owners.append(owner)
        self._slots[owner] = slot
        self._rows[slot].copy_(self._initial[0] if row is None else row)

    def load(self, owner: Hashable, row: Tensor) -> None:
        """Puts a row into the owner's slot."""
        self._rows[self._slots[owner]].copy_(row)

    def run(self, owner: Hashable) -> None:
        """Moves the owner into the running zone."""
        if not self.is_running(owner):
            self._swap(self._slots[owner], self.num_running)
            self.num_running += 1

    def rest(self, owner: Hashable) -> None:
        """Moves the owner out of the running zone."""
        if self.is_running(owner):
            self._swap(self._slots[owner], self.num_running - 1)
            self.num_running -= 1

    def release(self, owner: Hashable) -> None:
        """Frees the owner's slot, which is in the initial state again. Nothing happens if it has none."""
        if owner not in self._slots:
            return
        self.rest(owner)
        last = len(self._owners) - 1
        self._swap(self._slots[owner], last)
        self._owners.pop()
        del self._slots[owner]
        self._rows[last].copy_(self._initial[0])

    def copied(self, owner: Hashable) -> Tensor:
        """The owner's row, in host memory."""
        return self._rows[self._slots[owner]].to("cpu", copy=True)

    def spill(self, owner: Hashable) -> Tensor:
        """Takes the owner's row out to host memory and frees its slot."""
        row = self.copied(owner)
        self.release(owner)
        return row

    def tensors(self, row: Tensor | None) -> State:
        """Views of a row in host memory (None: the initial state), by name, without the batch dimension."""
        rows = self._initial.cpu() if row is None else row[None]
        views = _views(rows, self._spec, self._offsets, self._activations)
        return {name: view[0] for name, view in views.items()}

    def packed(self, state: State) -> Tensor:
        """A row of such tensors."""
        row = torch.zeros(self.row_bytes, dtype=torch.uint8)
        for name, view in self.tensors(row).items():
            view.copy_(state[name])
        return row

    def _swap(self, a: int, b: int) -> None:
        if a == b:
            return
        kept = self._rows[a].clone()
        self._rows[a].copy_(self._rows[b])
        self._rows[b].copy_(kept)
        self._owners[a], self._owners[b] = self._owners[b], self._owners[a]
        self._slots[self._owners[a]], self._slots[self._owners[b]] = a, b

    def _view(self, first: int, last: int) -> State:
        return {name: tensor[first:last] for name, tensor in self._tensors.items()}


def _layout(spec: StateSpec, activations: torch.dtype) -> tuple[dict[str, int], int]:
    """Offset of each tensor within a row, and the row's width, in bytes."""
    offsets, width = {}, 0
    for name, tensor in spec.items():
        offsets[name] = width
        width += math.ceil(tensor.num_bytes(activations) / _ALIGNMENT) * _ALIGNMENT
    return offsets, width


def _views(rows: Tensor, spec: StateSpec, offsets: dict[str, int], activations: torch.dtype) -> State:
    views = {}
    for name, tensor in spec.items():
        part = rows[:, offsets[name] : offsets[name] + tensor.num_bytes(activations)]
        values = part.view(tensor.dtype(activations))
        inner = torch.empty(tensor.shape, device="meta").stride()
        views[name] = values.as_strided((len(rows), *tensor.shape), (values.stride(0), *inner))
    return views
