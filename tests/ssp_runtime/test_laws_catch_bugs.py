"""Each law fails on a mixer that breaks it: a sound toy, and toys with one mistake each."""

import pytest
import torch
from torch import Tensor, nn

from ssp_kernels.padding import masked
from ssp_runtime.mixers.base import Coefficients, FixedCoefficients, Mixer
from ssp_runtime.run import Run
from ssp_runtime.state import State, TensorSpec
from tests.ssp_runtime import laws
from tests.ssp_runtime.laws import LAWS, LENGTH, Law, Subject
from tests.ssp_runtime.subjects import numbers, randomized

WIDTH = 3


class ToyCoefficients(Coefficients):
    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(WIDTH))

    def forward(self) -> tuple[Tensor, ...]:
        return (torch.sigmoid(self.logits),)


class Toy(Mixer):
    """The last two inputs before this one, and an average: `s_t = a s_{t-1} + x_t`, `y_t = s_t + x_{t-2}`."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients: Coefficients = ToyCoefficients()
        self.state_spec = {
            "average": TensorSpec((WIDTH,), "accumulator"),
            "last_inputs": TensorSpec((2, WIDTH), "activation"),
        }

    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        inputs = torch.cat([state["last_inputs"], masked(x_BLD, lengths_B)], dim=1)
        averages = [state["average"]]
        for t in range(x_BLD.shape[1]):
            averages.append(self.decay() * averages[-1] + inputs[:, t + 2])
        ends = torch.full((len(x_BLD),), x_BLD.shape[1]) if lengths_B is None else lengths_B
        rows = torch.arange(len(x_BLD))
        y_BLD = torch.stack(averages, dim=1)[:, 1:] + inputs[:, : x_BLD.shape[1]]
        last_inputs = torch.stack([inputs[rows, ends], inputs[rows, ends + 1]], dim=1)
        return y_BLD, {"average": torch.stack(averages, dim=1)[rows, ends], "last_inputs": last_inputs}

    def step(self, x_BD: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        average = self.decay() * state["average"] + x_BD
        y_BD = average + state["last_inputs"][:, 0]
        new = {"average": average, "last_inputs": torch.stack([state["last_inputs"][:, 1], x_BD], dim=1)}
        return y_BD, new if out is None else {name: out[name].copy_(tensor) for name, tensor in new.items()}

    def compute(self, x: Tensor, run: Run) -> Tensor:
        raise AssertionError(f"the forms of {type(self).__name__} are written apart: {x}, {run}")

    def decay(self) -> Tensor:
        (decay,) = self.coefficients()
        return torch.as_tensor(decay)


class ForgetsWhatItStartsFrom(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        return super().forward(x_BLD, {name: torch.zeros_like(t) for name, t in state.items()}, lengths_B=lengths_B)


class ForgetsInputsBeforeAShortPiece(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        y_BLD, new = super().forward(x_BLD, state, lengths_B=lengths_B)
        if x_BLD.shape[1] == 1:
            new["last_inputs"] = torch.stack([torch.zeros_like(x_BLD[:, 0]), x_BLD[:, 0]], dim=1)
        return y_BLD, new


class FoldsThePadding(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        return super().forward(masked(x_BLD, lengths_B), state)


class MultipliesThePaddingByZero(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        y_BLD, new = super().forward(x_BLD, state, lengths_B=lengths_B)
        return y_BLD, {**new, "average": new["average"] + 0 * x_BLD.sum(1)}


class CentersOverTheBatch(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        y_BLD, new = super().forward(x_BLD, state, lengths_B=lengths_B)
        return y_BLD - 1e-6 * torch.nanmean(y_BLD, dim=0), new


class ReturnsItsInputStateForNoTokens(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        if x_BLD.shape[1] == 0:
            return x_BLD, state
        return super().forward(x_BLD, state, lengths_B=lengths_B)


class KeepsItsAverageInTheWrongType(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        y_BLD, new = super().forward(x_BLD, state, lengths_B=lengths_B)
        return y_BLD, {**new, "average": new["average"].float()}


class AlwaysWritesInPlace(Toy):
    def step(self, x_BD: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        return super().step(x_BD, state, out=state if out is None else out)


class WritesBeforeItReads(Toy):
    """Right with `out=other`, wrong with `out=state`."""

    def step(self, x_BD: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        y_BD, new = super().step(x_BD, state, out=out)
        return (y_BD, new) if out is None else (new["average"] + state["last_inputs"][:, 0], new)


class IgnoresWhereToWrite(Toy):
    def step(self, x_BD: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        del out
        return super().step(x_BD, state)


class WritesBesideItsSlots(Toy):
    """Spills into the neighbours of a strided destination."""

    def step(self, x_BD: Tensor, state: State, *, out: State | None = None) -> tuple[Tensor, State]:
        y_BD, new = super().step(x_BD, state, out=out)
        if out is not None and not out["average"].is_contiguous():
            out["average"].as_strided((1,), (1,), 0).zero_()
        return y_BD, new


class SquashesConvertedCoefficientsAgain(Toy):
    def decay(self) -> Tensor:
        (decay,) = self.coefficients()
        return torch.sigmoid(decay) if isinstance(self.coefficients, FixedCoefficients) else decay


class CutsTheGradientOfItsState(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        return super().forward(x_BLD, {name: t.detach() for name, t in state.items()}, lengths_B=lengths_B)


class DetachesItsCoefficients(Toy):
    def forward(self, x_BLD: Tensor, state: State, *, lengths_B: Tensor | None = None) -> tuple[Tensor, State]:
        with torch.no_grad():
            y_BLD, new = super().forward(x_BLD, state, lengths_B=lengths_B)
        return y_BLD + 0 * x_BLD, new


BUGS: list[tuple[Law, type[Toy]]] = [
    (laws.law_1_forward_is_the_folded_step, ForgetsWhatItStartsFrom),
    (laws.law_2_forward_can_be_cut_anywhere, ForgetsInputsBeforeAShortPiece),
    (laws.law_3_rows_do_not_see_each_other, FoldsThePadding),
    (laws.law_3_rows_do_not_see_each_other, MultipliesThePaddingByZero),
    (laws.law_3_rows_do_not_see_each_other, CentersOverTheBatch),
    (laws.law_4_the_state_is_what_the_spec_says, ReturnsItsInputStateForNoTokens),
    (laws.law_4_the_state_is_what_the_spec_says, KeepsItsAverageInTheWrongType),
    (laws.law_5_a_step_in_place_gives_the_same_bits, AlwaysWritesInPlace),
    (laws.law_5_a_step_in_place_gives_the_same_bits, WritesBeforeItReads),
    (laws.law_5_a_step_in_place_gives_the_same_bits, IgnoresWhereToWrite),
    (laws.law_5_a_step_in_place_gives_the_same_bits, WritesBesideItsSlots),
    (laws.law_6_conversion_changes_nothing, SquashesConvertedCoefficientsAgain),
    (laws.law_7_gradients_are_those_of_the_folded_step, CutsTheGradientOfItsState),
    (laws.law_7_gradients_are_those_of_the_folded_step, DetachesItsCoefficients),
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def subject_of(toy: Toy) -> Subject:
    return Subject(fold=randomized(toy), draw=lambda batch, length: numbers(batch, length, WIDTH))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_sound_toy_obeys(law: Law) -> None:
    law(subject_of(Toy()))


@pytest.mark.parametrize(("law", "toy"), BUGS)
def test_a_broken_toy_is_caught(law: Law, toy: type[Toy]) -> None:
    with pytest.raises(AssertionError):
        law(subject_of(toy()))


def test_a_piece_too_short_for_the_convolution_passes_law_1() -> None:
    """Why law 2 is needed besides it."""
    laws.law_1_forward_is_the_folded_step(subject_of(ForgetsInputsBeforeAShortPiece()))


def test_a_layer_that_reverses_rows_with_their_padding_is_caught() -> None:
    def encode(x_BLD: Tensor, lengths_B: Tensor | None) -> Tensor:
        reversed_BLD = masked(x_BLD, lengths_B).flip(1)
        return (reversed_BLD.cumsum(1) / torch.arange(1, x_BLD.shape[1] + 1)[:, None]).flip(1)

    with pytest.raises(AssertionError):
        laws.law_3_of_whole_sequences(encode, numbers(4, LENGTH, WIDTH), 1e-10)
