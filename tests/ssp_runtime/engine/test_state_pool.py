"""The state pool moves whole states between slots and never mixes them up."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor

from ssp_runtime.engine.state_pool import PoolFull, StatePool
from ssp_runtime.state import State, TensorSpec, initial_state, num_bytes

# Everything a state may hold: a running maximum, complex pairs, a bfloat16 ring buffer, a position, nothing at all.
SPEC = {
    "maximum": TensorSpec((3,), "accumulator", init=-1e38),
    "conv_state": TensorSpec((5, 3), "activation", init=-1.5),
    "ssm_state": TensorSpec((7, 2, 2), "accumulator"),
    "position": TensorSpec((), "index", init=-3),
    "offsets": TensorSpec((2,), "index", init=7),
    "empty": TensorSpec((4, 0), "activation"),
}
CPU = torch.device("cpu")


def new_pool(num_slots: int) -> StatePool:
    return StatePool(SPEC, num_slots, torch.bfloat16)


def assert_initial(state: State) -> None:
    for name, tensor in initial_state(SPEC, 1, torch.bfloat16, CPU).items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name


def mark(state: State, fingerprint: int) -> None:
    """Makes a row recognisable in each of its tensors."""
    for offset, tensor in enumerate(state.values()):
        tensor.fill_(fingerprint + offset)


def assert_marked(state: State, fingerprint: int) -> None:
    for offset, (name, tensor) in enumerate(state.items()):
        assert torch.equal(tensor, torch.full_like(tensor, fingerprint + offset)), f"{name} is another's"


def test_a_new_slot_is_in_the_initial_state() -> None:
    pool = new_pool(2)
    pool.place("a")
    assert_initial(pool.row("a"))


@pytest.mark.parametrize("leave", [StatePool.release, StatePool.spill], ids=["release", "spill"])
def test_a_slot_left_is_in_the_initial_state_for_the_next_owner(leave: Callable[[StatePool, str], object]) -> None:
    pool = new_pool(1)
    pool.place("a")
    pool.run("a")
    mark(pool.row("a"), 5)
    leave(pool, "a")
    pool.place("b")
    assert_initial(pool.row("b"))


def test_spilled_rows_come_back_bit_by_bit() -> None:
    pool = new_pool(2)
    pool.place("a")
    for tensor in pool.row("a").values():
        tensor.copy_(torch.randn(tensor.shape) * 1e3)
    before = {name: tensor.clone() for name, tensor in pool.row("a").items()}
    row = pool.spill("a")
    assert "a" not in pool and pool.num_used == 0
    pool.place("b")
    pool.place("a", row)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pool.row("a").items())


def test_a_spilled_row_is_a_copy() -> None:
    pool = new_pool(1)
    pool.place("a")
    mark(pool.row("a"), 5)
    row = pool.spill("a")
    kept = row.clone()
    pool.place("b")
    mark(pool.row("b"), 9)
    assert torch.equal(row, kept)


def test_every_byte_is_accounted_for() -> None:
    sizes = [3 * 4, 5 * 3 * 2, 7 * 2 * 2 * 4, 8, 2 * 8, 0]
    assert num_bytes(SPEC, torch.bfloat16) == sum(sizes)
    assert new_pool(1).row_bytes == sum(-(-size // 64) * 64 for size in sizes), "tensors begin on multiples of 64 bytes"
    pool = new_pool(1)
    pool.place("a")
    row = pool.spill("a")
    assert row.numel() * row.element_size() == pool.row_bytes


def test_a_full_pool_says_so() -> None:
    pool = new_pool(1)
    pool.place("a")
    with pytest.raises(PoolFull):
        pool.place("b")
    assert pool.owners() == ["a"]


def test_releasing_a_stranger_does_nothing() -> None:
    pool = new_pool(1)
    pool.release("nobody")
    pool.place("a")
    pool.release("a")
    pool.release("a")
    assert pool.num_used == pool.num_running == 0


def test_a_pool_has_slots() -> None:
    with pytest.raises(ValueError, match="at least one slot, not 0"):
        new_pool(0)


class Movements(RuleBasedStateMachine):
    """Owners come, run, rest, are spilled, restored and leave in any order; each keeps its own fingerprint."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = new_pool(4)
        self.fingerprints: dict[int, int] = {}  # of the owners in the pool
        self.running: set[int] = set()
        self.spilled: dict[int, tuple[Tensor, int]] = {}
        self.names = 0

    @property
    def full(self) -> bool:
        return len(self.fingerprints) == self.pool.num_slots

    @precondition(lambda self: not self.full)
    @rule()
    def place(self) -> None:
        self.names += 1
        self.pool.place(self.names)
        assert_initial(self.pool.row(self.names))
        self.fingerprints[self.names] = self.names % 20
        mark(self.pool.row(self.names), self.names % 20)

    @precondition(lambda self: self.fingerprints)
    @rule(data=st.data(), move=st.sampled_from(["run", "rest", "release", "spill"]))
    def move(self, data: st.DataObject, move: str) -> None:
        owner = data.draw(st.sampled_from(sorted(self.fingerprints)))
        row = getattr(self.pool, move)(owner)
        if move == "run":
            self.running.add(owner)
        else:
            self.running.discard(owner)
        if move in ("release", "spill"):
            fingerprint = self.fingerprints.pop(owner)
            if move == "spill":
                self.spilled[owner] = row, fingerprint

    @precondition(lambda self: self.spilled and not self.full)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.spilled)))
        row, fingerprint = self.spilled.pop(owner)
        self.pool.place(owner, row)
        self.fingerprints[owner] = fingerprint

    @precondition(lambda self: self.running)
    @rule()
    def step(self) -> None:
        """Writes through the running views, as a model's step does."""
        for tensor in self.pool.running().values():
            tensor.add_(1)
        for owner in self.running:
            self.fingerprints[owner] += 1

    @invariant()
    def everybody_has_their_own(self) -> None:
        assert set(self.pool.owners()) == set(self.fingerprints)
        for owner, fingerprint in self.fingerprints.items():
            assert_marked(self.pool.row(owner), fingerprint)

    @invariant()
    def running_rows_are_a_prefix_in_slot_order(self) -> None:
        owners = self.pool.running_owners()
        assert set(owners) == self.running and len(owners) == self.pool.num_running
        for slot, owner in enumerate(owners):
            assert_marked(
                {name: tensor[slot : slot + 1] for name, tensor in self.pool.running().items()},
                self.fingerprints[int(str(owner))],
            )


Movements.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
test_rows_are_never_mixed_up = Movements.TestCase
