"""Drawing tokens, against NumPy and against the definition of a distribution."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssp_runtime.engine import sampling
from ssp_runtime.engine.sampling import Draw, sample, uniform
from ssp_runtime.engine.sampling_params import SamplingParams

VOCAB = 17


def logits(rows: int = 1, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def draw(position: int = 0, **given: Any) -> Draw:
    context = {name: given.pop(name) for name in ("recent", "recent_generated", "forbidden") if name in given}
    return Draw(params=SamplingParams(**given), position=position, **context)


def numpy_distribution(row: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Probabilities after all filters, from their definitions."""
    scaled = np.exp((row - row.max()).astype(np.float64) / params.temperature)
    p = scaled / scaled.sum()
    order = sorted(range(len(p)), key=lambda token: -p[token])
    kept, mass = set(), 0.0
    for rank, token in enumerate(order):
        if (params.top_k and rank >= params.top_k) or mass >= params.top_p or p[token] < params.min_p * p.max():
            break
        kept.add(token)
        mass += p[token]
    filtered = np.array([p[token] if token in kept else 0 for token in range(len(p))])
    return np.asarray(filtered / filtered.sum())


def test_temperature_zero_takes_the_likeliest() -> None:
    rows = logits(5)
    assert sample(rows.clone(), [draw(temperature=0.0, seed=i) for i in range(5)]) == rows.argmax(-1).tolist()


@settings(max_examples=60, deadline=None)
@given(
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, VOCAB + 3),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_only_tokens_that_pass_all_filters_come_and_all_of_them(
    temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    row, positions = logits(seed=seed % 1000), range(200)
    expected = numpy_distribution(row[0].numpy(), params)
    tokens = sample(row.repeat(len(positions), 1), [Draw(params=params, position=at) for at in positions])
    inverse = np.searchsorted(expected.cumsum(), uniform([seed] * 200, positions), side="right")
    assert tokens == inverse.clip(max=expected.nonzero()[0].max()).tolist()
    assert all(expected[tokens] > 0)


@pytest.mark.parametrize("given", [{"top_k": 3}, {"top_p": 0.6}], ids=str)
def test_of_equally_likely_tokens_the_lower_ids_pass_a_filter(given: dict[str, Any]) -> None:
    row = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    tokens = sample(row.repeat(300, 1), [draw(position=at, **given) for at in range(300)])
    assert set(tokens) == {0, 1, 3}


@example(u=1 - 2**-53, other=0.0, top_k=3)
@given(u=st.floats(0, 1, exclude_max=True), other=st.floats(0, 1, exclude_max=True), top_k=st.integers(0, VOCAB))
def test_a_larger_number_draws_no_lower_id(u: float, other: float, top_k: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "uniform", lambda *_: np.array([u, other]))
        one, two = sample(logits().repeat(2, 1), [draw(top_k=top_k)] * 2)
    assert one == two or (one < two) == (u < other)
    assert {one, two} <= set(logits().topk(top_k or VOCAB).indices[0].tolist())


@pytest.mark.parametrize("given", [{}, {"top_k": 4}, {"temperature": 0.0}], ids=str)
def test_a_row_of_nan_leaves_its_neighbours_alone(given: dict[str, Any]) -> None:
    rows, draws = logits(3), [draw(position=at, **given) for at in range(3)]
    expected = sample(rows.clone(), draws)
    rows[1] = torch.nan
    drawn = sample(rows, draws)
    assert (drawn[0], drawn[2]) == (expected[0], expected[2])


def test_a_large_vocabulary_is_drawn_from_as_a_small_one() -> None:
    """Its rows go piece by piece."""
    wide = torch.full((3, 50_000), -torch.inf)
    wide[:, 49_000 : 49_000 + VOCAB] = logits(3)
    draws = [draw(position=at, top_k=5 * (at % 2)) for at in range(3)]
    assert sample(wide, draws) == [49_000 + token for token in sample(logits(3), draws)]


@pytest.mark.parametrize(
    "given",
    [{}, {"temperature": 2.0}, {"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.1}, {"top_k": 9, "top_p": 0.9, "min_p": 0.02}],
    ids=str,
)
def test_frequencies_over_positions_are_the_distribution(given: dict[str, Any]) -> None:
    count, row = 20_000, logits()
    params = SamplingParams(seed=1, **given)
    tokens = sample(row.repeat(count, 1), [Draw(params=params, position=at) for at in range(count)])
    expected = numpy_distribution(row[0].numpy(), params) * count
    seen = np.bincount(tokens, minlength=VOCAB)
    likely = expected > 0
    assert not seen[~likely].any()
    chi_squared = ((seen - expected)[likely] ** 2 / expected[likely]).sum()
    assert chi_squared < 40, "more than the 99.9 % quantile for 16 degrees of freedom"


def test_neighbouring_seeds_draw_independently() -> None:
    numbers = np.stack([uniform([seed] * 4000, range(4000)) for seed in range(8)])
    correlations = np.corrcoef(numbers) - np.eye(8)
    assert abs(correlations).max() < 0.06 and abs(numbers.mean(1) - 0.5).max() < 0.02
    assert (numbers >= 0).all() and (numbers < 1).all()


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    rows = logits(12)
    draws = [draw(position=100 + i % 5, seed=i, temperature=0.9) for i in range(12)]
    together = sample(rows.clone(), draws)
    alone = [sample(rows[i : i + 1].clone(), [draws[i]])[0] for i in range(12)]
    backwards = sample(rows.flip(0).clone(), draws[::-1])[::-1]
    assert together == alone == backwards
    assert len({sample(logits(), [draw(position=at)])[0] for at in range(50)}) > 3, "the position has no effect"
    assert len({sample(logits(), [draw(seed=seed)])[0] for seed in range(50)}) > 3, "the seed has no effect"


@pytest.mark.parametrize("cold", [0.0, 1e-310])
def test_cold_rows_beside_warm_ones(cold: float) -> None:
    rows = logits(6)
    mixed = sample(rows.clone(), [draw(position=at, temperature=cold if at % 2 else 1.0) for at in range(6)])
    warm = sample(rows.clone(), [draw(position=at) for at in range(6)])
    assert mixed[1::2] == rows.argmax(-1).tolist()[1::2] and mixed[::2] == warm[::2]


def test_greedy_takes_the_first_of_the_likeliest_beside_warm_rows_too() -> None:
    rows = torch.tensor([0.0, 7.0, 7.0]).repeat(40, 1)
    drawn = sample(rows, [draw(position=at, temperature=float(at % 2)) for at in range(40)])
    assert set(drawn[::2]) == {1} and set(drawn[1::2]) == {1, 2}


def test_a_row_with_penalties_leaves_its_neighbours_alone() -> None:
    rows = logits(3)
    plain = draw(temperature=0.0)
    biased = draw(temperature=0.0, logit_bias={2: 100.0}, repetition_penalty=2.0, recent=[1, 3])
    before = rows.argmax(-1).tolist()
    assert sample(rows.clone(), [plain, biased, plain]) == [before[0], 2, before[2]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"repetition_penalty": 4.0, "recent": [0, 0, 2]}, [1.0, 3.0, -8.0, 1.0]),
        ({"presence_penalty": 1.5, "recent": [3], "recent_generated": [0, 0, 2]}, [2.5, 3.0, -3.5, 1.0]),
        ({"frequency_penalty": 1.5, "recent_generated": [0, 0, 2]}, [1.0, 3.0, -3.5, 1.0]),
        ({"presence_penalty": -1.0, "frequency_penalty": 0.5, "recent_generated": [3]}, [4.0, 3.0, -2.0, 1.5]),
        ({"logit_bias": {1: -2.0, 3: 7.0}}, [4.0, 1.0, -2.0, 8.0]),
        ({"min_tokens": 1, "forbidden": [0, 1]}, [-np.inf, -np.inf, -2.0, 1.0]),
        ({"repetition_penalty": 2.0, "recent": []}, [4.0, 3.0, -2.0, 1.0]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_changes_the_logits(given: dict[str, Any], expected: list[float]) -> None:
    row = torch.tensor([[4.0, 3.0, -2.0, 1.0]])
    (token,) = sample(row, [draw(temperature=0.0, **given)])
    assert row[0].tolist() == expected and token == int(np.argmax(expected))


def test_forbidden_tokens_never_come() -> None:
    draws = [draw(position=at, min_tokens=5, forbidden=[4, 9]) for at in range(500)]
    assert not {4, 9} & set(sample(torch.zeros(500, VOCAB), draws))


def test_narrow_weights_are_drawn_in_full_precision() -> None:
    row = logits().bfloat16()
    draws = [draw(position=at) for at in range(50)]
    assert sample(row.repeat(50, 1), draws) == sample(row.float().repeat(50, 1), draws)
