"""What is told of a state's numbers, and which are refused."""

import math

import pytest
import torch

from ssp_runtime.errors import StateCorrupt
from ssp_runtime.sessions import health
from ssp_runtime.state import State, TensorSpec

SPEC = {
    "sums": TensorSpec((3,), "accumulator"),
    "largest": TensorSpec((2,), "accumulator", init=-1e38),
    "bound": TensorSpec((1,), "accumulator", init=-math.inf),
    "position": TensorSpec((), "index"),
}


def state() -> State:
    return {
        "sums": torch.tensor([1.0, -4.0, 0.0]),
        "largest": torch.tensor([-1e38, -8.0]),
        "bound": torch.tensor([-math.inf]),
        "position": torch.tensor(10**12),
    }


def test_numbers_are_summed_up_but_for_what_is_still_as_at_first() -> None:
    found = health.check(state(), SPEC)
    assert (found.norm, found.largest, found.largest_in) == (9.0, 8.0, "largest")


def test_a_new_state_has_no_numbers() -> None:
    new = {name: spec.initial(1, torch.float32, torch.device("cpu"))[0] for name, spec in SPEC.items()}
    assert health.check(new, SPEC) == health.Health(norm=0.0, largest=0.0, largest_in="")


@pytest.mark.parametrize(("name", "value"), [("sums", math.nan), ("sums", -math.inf), ("bound", math.inf)])
def test_what_is_not_finite_is_refused(name: str, value: float) -> None:
    bad = state()
    bad[name][0] = value
    with pytest.raises(StateCorrupt, match=f"NaN or infinite values, in {name}"):
        health.check(bad, SPEC)
