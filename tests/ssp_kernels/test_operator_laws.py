"""Every form of every operator equals its reference, can be cut anywhere, folds into steps, and steps in place."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.ssp_kernels.operator_cases import TOLERANCE, Arguments, Subject, assert_close


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_equals_the_reference_from_a_warm_state(fast_subject: Subject, dtype: torch.dtype) -> None:
    for length in fast_subject.lengths:
        given = fast_subject.arguments(2, length, dtype)
        y_BLD, state = fast_subject.forward(given)
        assert y_BLD.dtype == state.dtype == dtype
        for found, expected in zip((y_BLD, state), fast_subject.reference(given), strict=True):
            assert_close(found, expected, TOLERANCE[dtype])


def test_forward_leaves_its_inputs_alone_and_shares_no_memory_with_them(subject: Subject) -> None:
    for length in (0, 1, subject.lengths[-1]):
        given = subject.arguments(2, length)
        before = given.map(torch.clone)
        memory = {t.untyped_storage().data_ptr() for t in given.all() if t.numel()}
        results = subject.forward(given)
        assert all(torch.equal(a, b) for a, b in zip(given.all(), before.all(), strict=True))
        assert not memory & {t.untyped_storage().data_ptr() for t in results if t.numel()}


def _strided(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], dim=-1)[..., 0]


def test_strided_arguments_are_as_good_as_contiguous_ones(subject: Subject) -> None:
    given = subject.arguments(2, subject.lengths[-1])
    for found, expected in zip(subject.forward(given.map(_strided)), subject.forward(given), strict=True):
        assert_close(found, expected, TOLERANCE[torch.float64])
    strided = given.token(0).map(_strided)
    y_BD, state = subject.step(given.token(0))
    assert torch.equal(_step_into(subject, strided, strided.state)[0], y_BD)
    assert torch.equal(strided.state, state)


def test_forward_can_be_cut_anywhere(subject: Subject) -> None:
    length = subject.lengths[-1]
    given = subject.arguments(2, length)
    whole, final = subject.forward(given)
    for piece in {1, 2, 3, 16, length - 1}:
        state, outputs = given.state, []
        for start in range(0, length, piece):
            y, state = subject.forward(replace(given, state=state).tokens(start, start + piece))
            outputs.append(y)
        assert_close(torch.cat(outputs, dim=1), whole, TOLERANCE[torch.float64])
        assert_close(state, final, TOLERANCE[torch.float64])


def test_forward_equals_folded_steps(subject: Subject) -> None:
    length = subject.lengths[-1]
    given = subject.arguments(2, length)
    state, outputs = given.state.clone(), []
    for t in range(length):
        y, state = subject.step(replace(given, state=state).token(t), state)
        outputs.append(y)
    whole, final = subject.forward(given)
    assert_close(torch.stack(outputs, dim=1), whole, TOLERANCE[torch.float64])
    assert_close(state, final, TOLERANCE[torch.float64])


def test_padding_leaves_the_state_alone(subject: Subject) -> None:
    length = subject.lengths[-1]
    lengths = [0, 1, length - 2, length]
    given = subject.arguments(len(lengths), length)
    y_BLD, state = subject.forward(given, torch.tensor(lengths, device=subject.device))
    assert torch.equal(state[0], given.state[0])
    for row, valid in enumerate(lengths):
        y_alone, state_alone = subject.reference(given.rows(row, row + 1).tokens(0, valid))
        assert_close(y_BLD[row : row + 1, :valid], y_alone, TOLERANCE[torch.float64])
        assert_close(state[row : row + 1], state_alone, TOLERANCE[torch.float64])


def test_an_empty_batch_passes_through(subject: Subject) -> None:
    for length in (0, 3):
        given = subject.arguments(0, length)
        y_BLD, state = subject.forward(given)
        ragged = subject.forward(given, torch.zeros(0, dtype=torch.long, device=subject.device))
        assert y_BLD.shape == ragged[0].shape == (0, length, y_BLD.shape[-1])
        assert state.shape == ragged[1].shape == given.state.shape
    y_BD, state = subject.step(given.token(0))
    assert len(y_BD) == 0 and state.shape == given.state.shape


def _pool(state: Tensor, kind: str) -> Tensor:
    """Seven slots, of which 2 to 4 are to hold the state; those of a wide pool lie further apart than they are long."""
    slots, size = 7, state[0].numel()
    if kind == "packed":
        return state.new_full((slots, *state.shape[1:]), 7.0)
    return state.new_full((slots, size + 3), 7.0)[:, 1 : size + 1].view(slots, *state.shape[1:])


def _pooled(state: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    pool = _pool(state, kind)
    pool[2:5] = state
    return pool, pool[2:5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["packed", "wide"])
def test_step_gives_the_same_bits_wherever_it_writes(subject: Subject, dtype: torch.dtype, kind: str) -> None:
    given = subject.arguments(3, 1, dtype).token(0)
    before = given.map(torch.clone)
    y_BD, new = subject.step(given)
    assert all(torch.equal(a, b) for a, b in zip(given.all(), before.all(), strict=True))
    assert new.untyped_storage().data_ptr() != given.state.untyped_storage().data_ptr() or not new.numel()

    pool, view = _pooled(given.state, kind)
    y_other, other = _step_into(subject, given, view)
    assert torch.equal(y_other, y_BD) and torch.equal(other, new)
    assert all(torch.equal(a, b) for a, b in zip(given.all(), before.all(), strict=True))

    pool, view = _pooled(given.state, kind)
    y_in_place, in_place = _step_into(subject, replace(given, state=view), view)
    assert torch.equal(y_in_place, y_BD) and torch.equal(in_place, new)
    assert (pool[:2] == 7).all() and (pool[5:] == 7).all()


def _step_into(subject: Subject, given: Arguments, out: Tensor) -> tuple[Tensor, Tensor]:
    y_BD, returned = subject.step(given, out)
    assert returned is out
    return y_BD, out


def test_step_equals_the_reference(subject: Subject) -> None:
    given = subject.arguments(3, 1)
    y_BLD, state = subject.reference(given)
    y_BD, new = subject.step(given.token(0))
    assert_close(y_BD, y_BLD[:, 0], TOLERANCE[torch.float64])
    assert_close(new, state, TOLERANCE[torch.float64])
