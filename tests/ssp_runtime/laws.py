"""The seven laws of a fold, written once (DESIGN.md, section 1). Each is a function of a `Subject`."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.mixers.base import Fold
from ssp_runtime.state import State, initial_state

LENGTH = 35  # more than a block of the selective scan
PIECES = (1, 2, 3, 16, LENGTH - 1)


def largest(tensor: Tensor) -> Tensor:
    return tensor.abs().max()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A fold with inputs for it.

    `draw(batch, length)` gives random inputs. `warm` lists prefixes after which the laws are tried. A state that is
    `linear` may be anything, so that a random one is tried, too. `tolerance` is relative to the `magnitude` of what is
    compared.
    """

    fold: Fold
    draw: Callable[[int, int], Tensor]
    dtype: torch.dtype = torch.float64
    tolerance: float = 1e-10
    warm: tuple[int, ...] = (0, 1, 3, 4, 13)
    linear: bool = True
    magnitude: Callable[[Tensor], Tensor] = largest

    def initial_state(self, batch: int) -> State:
        return initial_state(self.fold.state_spec, batch, self.dtype, torch.device("cpu"))

    def warm_states(self, batch: int) -> Iterator[State]:
        for length in self.warm:
            yield self.warm_state(batch, length)
        if self.linear:
            yield {name: torch.randn_like(tensor) for name, tensor in self.initial_state(batch).items()}

    @torch.no_grad()
    def warm_state(self, batch: int, length: int | None = None) -> State:
        length = self.warm[-1] if length is None else length
        warm: State = self.fold(self.draw(batch, length), self.initial_state(batch))[1]
        return warm


Law = Callable[[Subject], None]


@torch.no_grad()
def law_1_forward_is_the_folded_step(subject: Subject) -> None:
    for state in subject.warm_states(2):
        x = subject.draw(2, LENGTH)
        assert_close(subject, subject.fold(x, state), folded_step(subject.fold, x, state), "the folded step")


@torch.no_grad()
def law_2_forward_can_be_cut_anywhere(subject: Subject) -> None:
    x, state = subject.draw(2, LENGTH), subject.warm_state(2)
    whole = subject.fold(x, state)
    for piece in PIECES:
        assert_close(subject, in_pieces(subject.fold, x, state, piece), whole, f"the whole, in pieces of {piece}")


@torch.no_grad()
def law_3_rows_do_not_see_each_other(subject: Subject) -> None:
    lengths = [LENGTH, 0, 1, 3, 17]
    x, state = subject.draw(len(lengths), LENGTH), subject.warm_state(len(lengths))
    y, new = subject.fold(poisoned(x, lengths), state, lengths_B=torch.tensor(lengths))
    for row, length in enumerate(lengths):
        this = slice(row, row + 1)
        alone = subject.fold(x[this, :length], {name: tensor[this] for name, tensor in state.items()})
        in_batch = y[this, :length], {name: tensor[this] for name, tensor in new.items()}
        assert_close(subject, in_batch, alone, f"row {row} alone")
    if x.is_floating_point():
        _assert_nan_stays_in_its_row(subject, x, state)


@torch.no_grad()
def law_4_the_state_is_what_the_spec_says(subject: Subject) -> None:
    for length in (0, 1, 5):
        x, state = subject.draw(3, length), subject.warm_state(3)
        y, new = subject.fold(x, state)
        assert y.shape[:2] == (3, length), f"outputs {tuple(y.shape)} of {length} tokens"
        _assert_as_specified(subject, new)
        _assert_no_alias([x, *state.values()], [y, *new.values()])
        if length == 0:
            _assert_same_bits(new, state, "no token changed the state")
    x, state = subject.draw(3, 1)[:, 0], subject.warm_state(3)
    y, new = subject.fold.step(x, state)
    _assert_as_specified(subject, new)
    _assert_no_alias([x, *state.values()], [y, *new.values()])


@torch.no_grad()
def law_5_a_step_in_place_gives_the_same_bits(subject: Subject) -> None:
    x, state = subject.draw(2, 1)[:, 0], subject.warm_state(2)
    before = copied({"x": x, **state})
    subject.fold(x[:, None], state)
    expected = subject.fold.step(x, state)
    _assert_same_bits({"x": x, **state}, before, "an input was changed without `out`")
    same, other, pool = copied(state), _poison_like(state), _poison_like(state, (5, 2))
    slots = {name: tensor[1:3, 1].copy_(state[name]) for name, tensor in pool.items()}
    for what, source, target in (("state", same, same), ("other", state, other), ("state, in a pool", slots, slots)):
        y, new = subject.fold.step(x, source, out=target)
        _assert_same_bits({"y": y}, {"y": expected[0]}, f"outputs with out={what}")
        _assert_same_bits(new, expected[1], f"the state returned with out={what}")
        _assert_same_bits(target, expected[1], f"the state written with out={what}")
    _assert_same_bits({"x": x, **state}, before, "an input was changed though `out` was another")
    for name, tensor in pool.items():
        tensor[1:3, 1] = _poison(tensor)
        untouched = torch.full_like(tensor, _poison(tensor))
        assert torch.allclose(tensor, untouched, equal_nan=True), f"{name} of other slots was written"


@torch.no_grad()
def law_6_conversion_changes_nothing(subject: Subject) -> None:
    converted = copy.deepcopy(subject.fold)
    to_recurrent(converted)
    x, state = subject.draw(2, LENGTH), subject.warm_state(2)
    trained = subject.fold(x, state)
    assert_close(subject, folded_step(converted, x, state), trained, "the model before conversion")
    assert_close(subject, converted(x, state), trained, "the model before conversion, in parallel form")


def law_7_gradients_are_those_of_the_folded_step(subject: Subject) -> None:
    x, state = subject.draw(2, LENGTH), subject.warm_state(2)
    parallel = _gradients(subject.fold, subject.fold, x, state)
    folded = _gradients(subject.fold, lambda x, state: folded_step(subject.fold, x, state), x, state)
    # Some cancel to nothing, which no relative tolerance can hold.
    smallest_scale = 1e-4 * max(float(gradient.abs().max()) for gradient in folded.values() if gradient.numel())
    for name, expected in folded.items():
        what = f"gradient of {name}"
        _assert_tensors_close(parallel[name], expected, subject.tolerance, what, subject.magnitude, smallest_scale)


LAWS: tuple[Law, ...] = (
    law_1_forward_is_the_folded_step,
    law_2_forward_can_be_cut_anywhere,
    law_3_rows_do_not_see_each_other,
    law_4_the_state_is_what_the_spec_says,
    law_5_a_step_in_place_gives_the_same_bits,
    law_6_conversion_changes_nothing,
    law_7_gradients_are_those_of_the_folded_step,
)


@torch.no_grad()
def law_3_of_whole_sequences(encode: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, tolerance: float) -> None:
    """Law 3 for what is no fold: a bidirectional layer, or a classifier."""
    lengths = [LENGTH, 1, 3, 17]
    y = encode(poisoned(x, lengths), torch.tensor(lengths))
    for row, length in enumerate(lengths):
        in_batch = y[row, :length] if y.shape[1] == LENGTH else y[row]
        alone = encode(x[row : row + 1, :length], None)[0]
        _assert_tensors_close(in_batch, alone, tolerance, f"row {row}, against itself alone")


def folded_step(fold: Fold, x: Tensor, state: State) -> tuple[Tensor, State]:
    outputs = []
    for t in range(x.shape[1]):
        y, state = fold.step(x[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def in_pieces(fold: Fold, x: Tensor, state: State, piece: int) -> tuple[Tensor, State]:
    outputs = []
    for part in torch.split(x, piece, dim=1):
        y, state = fold(part, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def poisoned(x: Tensor, lengths: list[int]) -> Tensor:
    """The same with NaN for padding. Token ids cannot be; theirs are random ids already."""
    if not x.is_floating_point():
        return x
    padding_BL = torch.arange(x.shape[1]) >= torch.tensor(lengths)[:, None]
    return x.masked_fill(padding_BL[..., None], math.nan)


def _assert_nan_stays_in_its_row(subject: Subject, x: Tensor, state: State) -> None:
    clean, spoilt = x.clone(), x.clone()
    spoilt[1] = math.nan
    others = torch.arange(len(x)) != 1
    (y, new), (expected_y, expected) = subject.fold(spoilt, state), subject.fold(clean, state)
    actual = y[others], {name: tensor[others] for name, tensor in new.items()}
    wanted = expected_y[others], {name: tensor[others] for name, tensor in expected.items()}
    assert_close(subject, actual, wanted, "the batch without a row of NaN")


def copied(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_close(subject: Subject, actual: tuple[Tensor, State], expected: tuple[Tensor, State], what: str) -> None:
    """Outputs and states, each tensor relative to its own magnitude."""
    assert actual[1].keys() == expected[1].keys(), f"{sorted(actual[1])} instead of {sorted(expected[1])}"
    pairs = {"outputs": (actual[0], expected[0])} | {name: (actual[1][name], expected[1][name]) for name in expected[1]}
    for name, (given, wanted) in pairs.items():
        _assert_tensors_close(given, wanted, subject.tolerance, f"{name}, against {what}", subject.magnitude)


def _assert_tensors_close(
    actual: Tensor,
    expected: Tensor,
    tolerance: float,
    what: str,
    magnitude: Callable[[Tensor], Tensor] = largest,
    smallest_scale: float = 0,
) -> None:
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    if not expected.is_floating_point():
        assert torch.equal(actual, expected), f"{what}: {actual.tolist()} instead of {expected.tolist()}"
        return
    scale, error = float(magnitude(expected)), float(magnitude(actual - expected))
    assert math.isfinite(scale), f"{what}: not finite"
    scale = max(scale, smallest_scale)
    assert error <= tolerance * scale, f"{what}: off by {error:.1e} at magnitude {scale:.1e}"


def _assert_as_specified(subject: Subject, state: State) -> None:
    spec = subject.fold.state_spec
    assert state.keys() == spec.keys(), f"{sorted(state)} instead of {sorted(spec)}"
    for name, tensor in state.items():
        assert tensor.shape == (3, *spec[name].shape), f"{name} has shape {tuple(tensor.shape)}"
        wanted = spec[name].dtype(subject.dtype)
        assert tensor.dtype == wanted, f"{name} is {tensor.dtype}, its kind says {wanted}"


def _assert_no_alias(given: list[Tensor], returned: list[Tensor]) -> None:
    """No returned tensor shares memory with a given one or with another returned one."""
    taken = {_memory(tensor) for tensor in given if tensor.numel()}
    for tensor in returned:
        if tensor.numel():
            assert _memory(tensor) not in taken, f"a returned tensor {tuple(tensor.shape)} aliases another"
            taken.add(_memory(tensor))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _assert_same_bits(actual: State, expected: State, what: str) -> None:
    assert actual.keys() == expected.keys(), f"{what}: {sorted(actual)} instead of {sorted(expected)}"
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), f"{what}: {name} differs"


def _poison_like(state: State, pool: tuple[int, ...] | None = None) -> State:
    """Tensors of nothing but poison, with `pool` instead of the batch dimension if given."""
    return {
        name: tensor.new_full((*(pool or tensor.shape[:1]), *tensor.shape[1:]), _poison(tensor))
        for name, tensor in state.items()
    }


def _poison(tensor: Tensor) -> float:
    return math.nan if tensor.is_floating_point() else -1


def _gradients(
    fold: Fold, function: Callable[[Tensor, State], tuple[Tensor, State]], x: Tensor, state: State
) -> dict[str, Tensor]:
    """Of a weighted sum of all outputs and of the final state, by what they are taken for."""
    x, state = x.clone().requires_grad_(x.is_floating_point()), copied(state)
    wanted = {"the input": x, **dict(fold.named_parameters())}
    for name, tensor in state.items():
        wanted[f"the initial {name}"] = tensor.requires_grad_(tensor.is_floating_point())
    wanted = {name: tensor for name, tensor in wanted.items() if tensor.requires_grad}
    y, new = function(x, state)
    floating = [y, *(new[name] for name in fold.state_spec if new[name].is_floating_point())]
    loss = torch.stack([_weighted_sum(tensor) for tensor in floating]).sum()
    gradients = torch.autograd.grad(loss, list(wanted.values()), materialize_grads=True)
    return dict(zip(wanted, gradients, strict=True))


def _weighted_sum(tensor: Tensor) -> Tensor:
    return tensor.flatten() @ torch.sin(1 + torch.arange(tensor.numel(), dtype=tensor.dtype))
