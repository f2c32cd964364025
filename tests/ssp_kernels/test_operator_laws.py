"""Every form of every operator equals its reference, can be cut anywhere, folds into steps, and steps in place."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.ssp_kernels.operator_cases import TOLERANCE, Arguments, States, Subject, assert_same


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_equals_the_reference_from_a_warm_state(fast_subject: Subject, dtype: torch.dtype) -> None:
    for length in fast_subject.lengths:
        given = fast_subject.arguments(2, length, dtype)
        y_BLD, states = fast_subject.forward(given)
        assert y_BLD.dtype == states[0].dtype == dtype
        assert_same((y_BLD, states), fast_subject.reference(given), TOLERANCE[dtype])


def test_forward_leaves_its_inputs_alone_and_shares_no_memory_with_them(subject: Subject) -> None:
    for length in (0, 1, subject.lengths[-1]):
        given = subject.arguments(2, length)
        before = given.map(torch.clone)
        memory = {t.untyped_storage().data_ptr() for t in given.all() if t.numel()}
        y_BLD, states = subject.forward(given)
        assert all(torch.equal(a, b) for a, b in zip(given.all(), before.all(), strict=True))
        assert not memory & {t.untyped_storage().data_ptr() for t in (y_BLD, *states) if t.numel()}


def _strided(tensor: Tensor) -> Tensor:
    other = torch.nan if tensor.is_floating_point() else 1 << 40
    return torch.stack([tensor, torch.full_like(tensor, other)], dim=-1)[..., 0]


def test_strided_arguments_are_as_good_as_contiguous_ones(subject: Subject) -> None:
    given = subject.arguments(2, subject.lengths[-1])
    assert_same(subject.forward(given.map(_strided)), subject.forward(given), TOLERANCE[torch.float64])
    strided = given.token(0).map(_strided)
    y_BD, states = subject.step(given.token(0))
    assert torch.equal(_step_into(subject, strided, strided.states), y_BD)
    assert all(map(torch.equal, strided.states, states))


def test_forward_can_be_cut_anywhere(subject: Subject) -> None:
    length = subject.lengths[-1]
    given = subject.arguments(2, length)
    whole, final = subject.forward(given)
    for piece in {1, 2, 3, 16, length - 1}:
        states, outputs = given.states, []
        for start in range(0, length, piece):
            y, states = subject.forward(replace(given, states=states).tokens(start, start + piece))
            outputs.append(y)
        assert_same((torch.cat(outputs, dim=1), states), (whole, final), TOLERANCE[torch.float64])


def test_forward_equals_folded_steps(subject: Subject) -> None:
    length = subject.lengths[-1]
    given = subject.arguments(2, length)
    states, outputs = tuple(state.clone() for state in given.states), []
    for t in range(length):
        y, states = subject.step(replace(given, states=states).token(t), states)
        outputs.append(y.clone())
    assert_same((torch.stack(outputs, dim=1), states), subject.forward(given), TOLERANCE[torch.float64])


def test_padding_leaves_the_state_alone(subject: Subject) -> None:
    length = subject.lengths[-1]
    lengths = [0, 1, length - 2, length]
    given = subject.arguments(len(lengths), length)
    y_BLD, states = subject.forward(given, torch.tensor(lengths, device=subject.device))
    assert all(torch.equal(state[0], before[0]) for state, before in zip(states, given.states, strict=True))
    for row, valid in enumerate(lengths):
        alone = subject.reference(given.rows(row, row + 1).tokens(0, valid))
        found = y_BLD[row : row + 1, :valid], tuple(state[row : row + 1] for state in states)
        assert_same(found, alone, TOLERANCE[torch.float64])


def test_an_empty_batch_passes_through(subject: Subject) -> None:
    for length in (0, 3):
        given = subject.arguments(0, length)
        y_BLD, states = subject.forward(given)
        ragged = subject.forward(given, torch.zeros(0, dtype=torch.long, device=subject.device))
        assert y_BLD.shape == ragged[0].shape == (0, length, *y_BLD.shape[2:])
        for state, ragged_state, before in zip(states, ragged[1], given.states, strict=True):
            assert state.shape == ragged_state.shape == before.shape
    y_BD, states = subject.step(given.token(0))
    assert len(y_BD) == 0 and [s.shape for s in states] == [s.shape for s in given.states]


def _pooled(states: States, kind: str) -> tuple[States, States]:
    """Seven slots, of which 2 to 4 hold the states; those of a wide pool lie further apart than they are long."""
    pools = tuple(_pool(state, kind) for state in states)
    for pool, state in zip(pools, states, strict=True):
        pool[2:5] = state
    return pools, tuple(pool[2:5] for pool in pools)


def _pool(state: Tensor, kind: str) -> Tensor:
    slots, size = 7, state[0].numel()
    if kind == "packed":
        return state.new_full((slots, *state.shape[1:]), 7)
    return state.new_full((slots, size + 3), 7)[:, 1 : size + 1].view(slots, *state.shape[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["packed", "wide"])
def test_step_gives_the_same_bits_wherever_it_writes(subject: Subject, dtype: torch.dtype, kind: str) -> None:
    given = subject.arguments(3, 1, dtype).token(0)
    before = given.map(torch.clone)
    y_BD, new = subject.step(given)
    assert all(map(torch.equal, given.all(), before.all()))
    memory = [t.untyped_storage().data_ptr() for t in (y_BD, *new, *given.states) if t.numel()]
    assert len(set(memory)) == len(memory)

    _, views = _pooled(given.states, kind)
    assert torch.equal(_step_into(subject, given, views), y_BD) and all(map(torch.equal, views, new))
    assert all(map(torch.equal, given.all(), before.all()))

    pools, views = _pooled(given.states, kind)
    assert torch.equal(_step_into(subject, replace(given, states=views), views), y_BD)
    assert all(map(torch.equal, views, new))
    assert all((pool[:2] == 7).all() and (pool[5:] == 7).all() for pool in pools)


def _step_into(subject: Subject, given: Arguments, out: States) -> Tensor:
    y_BD, returned = subject.step(given, out)
    assert all(new is place for new, place in zip(returned, out, strict=True))
    return y_BD


def test_step_equals_the_reference(subject: Subject) -> None:
    given = subject.arguments(3, 1)
    y_BLD, states = subject.reference(given)
    assert_same(subject.step(given.token(0)), (y_BLD[:, 0], states), TOLERANCE[torch.float64])
