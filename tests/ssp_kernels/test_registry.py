"""Which form runs: the fastest there is, or the one asked for, and never none."""

import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import pytest
import torch

from ssp_kernels import native, registry, selective_scan
from ssp_kernels.registry import Operator, Unavailable, choose, chosen, in_triton

CPU = torch.ones(2)


def _missing() -> str:
    raise Unavailable("no such compiler")


def _operator() -> Operator[str]:
    return Operator(
        "some", {"reference": lambda: "reference", "torch": lambda: "torch", "native": _missing, "triton": _missing}
    )


def test_the_fastest_available_form_is_picked() -> None:
    assert _operator().pick(CPU) == "torch"
    assert Operator("some", {"torch": lambda: "torch", "native": lambda: "native"}).pick(CPU) == "native"


def test_the_form_asked_for_is_picked() -> None:
    with chosen("reference"):
        assert _operator().pick(CPU) == "reference"
    assert _operator().pick(CPU) == "torch"


def test_an_operator_without_the_form_asked_for_keeps_its_default() -> None:
    with chosen("native"):
        assert Operator("some", {"reference": lambda: "reference", "torch": lambda: "torch"}).pick(CPU) == "torch"


def test_asking_for_a_form_that_cannot_run_says_why() -> None:
    with chosen("native"), pytest.raises(Unavailable, match="no such compiler"):
        _operator().pick(CPU)


def test_an_unknown_form_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="cuda_graphs"):
        choose("cuda_graphs")


def test_the_choice_before_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), chosen("reference"):
        raise ZeroDivisionError
    assert _operator().pick(CPU) == "torch"


def test_every_form_offered_can_be_asked_for() -> None:
    assert set(selective_scan.OPERATOR.form_names) <= set(registry.CHOICES)


def test_a_form_is_loaded_once() -> None:
    loads: list[str] = []
    operator = Operator("some", {"torch": lambda: loads.append("torch")})
    for _ in range(3):
        operator.pick(CPU)
    assert loads == ["torch"]


def test_falling_back_keeps_no_tensor_alive() -> None:
    operator, tensor = _operator(), torch.ones(2)
    operator.pick(tensor)
    operator.pick(tensor)
    watched = weakref.ref(tensor)
    del tensor
    assert watched() is None


def test_triton_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # an import of it fails
    monkeypatch.delitem(sys.modules, "ssp_kernels.selective_scan.triton_form", raising=False)
    with pytest.raises(Unavailable, match="triton is not installed"):
        Operator("some", {"triton": in_triton("selective_scan")}).form("triton")


def test_without_a_compiler_it_is_slower_but_works(tmp_path: Path) -> None:
    program = """
import torch
from ssp_kernels.registry import Unavailable
from ssp_kernels.selective_scan import OPERATOR, forward, step, torch_form
try:
    OPERATOR.form("native")
except Unavailable as reason:
    print(reason)
x, A = torch.ones(2, 3, 4), -torch.ones(4, 2)
y, state = forward(x, x, A, x[..., :2], x[..., :2], torch.zeros(2, 4, 2))
y, state = step(x[:, 0], x[:, 0], A, x[:, 0, :2], x[:, 0, :2], state, state)
assert OPERATOR.pick(x) is torch_form and y.isfinite().all()
"""
    hidden = {"PATH": "/nonexistent", "CXX": "/nonexistent", "SSP_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **hidden}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no C++ compiler was found" in done.stdout


def _source(tmp_path: Path, code: str) -> Path:
    source = tmp_path / "code.cpp"
    source.write_text(code)
    return source


def test_code_is_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _require_compiler()
    monkeypatch.setenv("SSP_CACHE", str(tmp_path / "kept"))
    source = _source(tmp_path, 'extern "C" int answer() { return 42; }')
    assert native.load(source).answer() == 42
    native.load.cache_clear()
    monkeypatch.setattr(native, "_compile", None)
    assert native.load(source).answer() == 42


def test_code_that_does_not_compile_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _require_compiler()
    monkeypatch.setenv("SSP_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match="colour"):
        native.load(_source(tmp_path, "colour red;"))


def test_a_cache_that_cannot_be_written_makes_the_form_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _require_compiler()
    source = _source(tmp_path, "")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSP_CACHE", str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="SSP_CACHE"):
        native.load(source)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setenv("SSP_CACHE", str(tmp_path / "read-only"))
    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(Unavailable, match="read-only"):
        native.load(source)


def test_a_user_without_a_home_makes_the_form_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SSP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(Unavailable, match="SSP_CACHE"):
        native.load(_source(tmp_path, ""))


def _require_compiler() -> None:
    try:
        native._compiler()
    except Unavailable as reason:
        pytest.skip(str(reason))
