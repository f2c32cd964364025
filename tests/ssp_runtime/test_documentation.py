"""The documents name what there is."""

import re
from pathlib import Path

import pytest

from ssp_kernels.operators import OPERATORS
from ssp_runtime.mixers import MIXERS
from ssp_runtime.models.architectures import ARCHITECTURES

ROOT = Path(__file__).parents[2]
BLOCKS = {"simple", "gated_mlp"}  # what is around a recurrence


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_every_architecture_is_in_its_table(page: str) -> None:
    assert ARCHITECTURES.keys() <= _named(page)


def test_every_mixer_and_every_operator_has_its_row() -> None:
    assert MIXERS.keys() - BLOCKS | {operator.name for operator in OPERATORS} <= _named("docs/models.md")


def test_the_guide_lists_every_operator() -> None:
    assert {operator.name for operator in OPERATORS} <= _named("docs/adding-a-primitive.md")


def _named(page: str) -> set[str]:
    return set(re.findall(r"`([^`\s]+)`", (ROOT / page).read_text(encoding="utf-8")))
