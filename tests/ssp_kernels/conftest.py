"""Memory that nobody wrote to is NaN in every test here, so that a form which leaves a result unwritten fails."""

from collections.abc import Iterator

import pytest
import torch

from tests.ssp_kernels.operator_cases import INTERPRETED, Subject, subjects


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # with it torch fills what `empty` and its kin return
    assert torch.empty(3).isnan().all() and torch.ones(3).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter takes 10 ms per token: let few tokens and features be several segments and tiles."""
    if INTERPRETED:
        from ssp_kernels.selective_scan import triton_form

        tile = triton_form._tile
        monkeypatch.setattr(triton_form, "_SEGMENT", 2)
        monkeypatch.setattr(triton_form, "_tile", lambda states, features, warps: tile(states, min(features, 4), warps))


def _name(subject: Subject) -> str:
    return f"{subject.case.name}-{subject.form_name}"


@pytest.fixture(params=subjects(), ids=_name)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Every form of every operator that can run here."""
    found: Subject = request.param
    found.require()
    return found


@pytest.fixture(params=(s for s in subjects() if s.form_name != "reference"), ids=_name)
def fast_subject(request: pytest.FixtureRequest) -> Subject:
    """The same without the references, for comparisons with those."""
    found: Subject = request.param
    found.require()
    return found
