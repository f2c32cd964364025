"""The sequences whose states lie in a pool, and those that had to leave it."""

import time
from collections.abc import Callable

from torch import Tensor

from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.state_pool import StatePool


class Rows:
    """For the engine's thread. With `packed` only running rows may lie in the pool: behind them is scratch."""

    def __init__(self, pool: StatePool, observer: Observer, *, packed: bool) -> None:
        self._pool, self._observer, self._packed = pool, observer, packed

    def running(self) -> list[Sequence]:
        return self._pool.running_owners()  # type: ignore[return-value]  # all owners are sequences

    def seat(self, sequence: Sequence, may_leave: Callable[[Sequence], bool]) -> None:
        """Sees to it that the sequence has a slot, if need be that of the longest unused one that may leave."""
        if sequence in self._pool:
            return
        if self._pool.num_used == self._pool.num_slots:
            self._spill(min(filter(may_leave, self._sequences()), key=lambda each: each.last_used))
        started = time.monotonic()
        self._pool.place(sequence, sequence.spilled)
        if sequence.spilled is not None:
            sequence.spilled = None
            self._observer.restored(time.monotonic() - started)

    def run(self, sequence: Sequence) -> None:
        self._pool.run(sequence)

    def rest(self, sequence: Sequence) -> None:
        """Out of the running rows."""
        self._pool.rest(sequence)
        if self._packed and sequence in self._pool:
            self._spill(sequence)

    def row(self, sequence: Sequence) -> Tensor:
        """A copy of a seated sequence's state, in host memory."""
        return self._pool.copied(sequence)

    def load(self, sequence: Sequence, row: Tensor) -> None:
        """Puts a state in place of the sequence's own."""
        if sequence in self._pool:
            self._pool.load(sequence, row)
        else:
            sequence.spilled = row

    def release(self, sequence: Sequence) -> None:
        self._pool.release(sequence)
        sequence.spilled = None

    def copied(self, sequence: Sequence) -> Sequence:
        """As `Engine.copied`."""
        sequence.settle()
        copy = sequence.cut()
        self.copy_state(sequence, copy)
        return copy

    def copy_state(self, source: Sequence, target: Sequence) -> None:
        """A spilled state is shared: nothing ever writes to it."""
        row = self._pool.copied(source) if source in self._pool else source.spilled
        self.release(target)
        target.spilled = row

    def _sequences(self) -> list[Sequence]:
        return [owner for owner in self._pool.owners() if isinstance(owner, Sequence)]

    def _spill(self, sequence: Sequence) -> None:
        sequence.spilled = self._pool.spill(sequence)
        self._observer.spilled()
