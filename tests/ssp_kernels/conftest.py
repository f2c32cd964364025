"""Memory that nobody wrote to is NaN in every test here, so that a form which leaves some of its result unwritten fails."""

import importlib.util
from collections.abc import Iterator

import pytest
import torch

from operator_cases import INTERPRETED, Subject, subjects


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # with it torch fills what `empty` and its kin return
    assert torch.empty(3).isnan().all() and torch.ones(3).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter takes milliseconds per token: let few tokens be several segments."""
    if INTERPRETED and importlib.util.find_spec("triton"):
        from ssp_kernels.selective_scan import triton_form

        monkeypatch.setattr(triton_form, "_SEGMENT", 4)


@pytest.fixture(params=subjects(), ids=lambda subject: f"{subject.case.name}-{subject.form_name}")
def subject(request: pytest.FixtureRequest) -> Subject:
    """Every form of every operator that can run here."""
    found: Subject = request.param
    found.require()
    return found
