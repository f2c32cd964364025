"""The Triton kernels where there is no GPU: interpreted they pass every law, and they compile for one."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ssp_kernels.operator_cases import INTERPRETED

pytest.importorskip("triton", reason="triton is not installed")
HERE = Path(__file__).parent


@pytest.mark.skipif(INTERPRETED, reason="this is that run")
def test_interpreted_kernels_pass_the_laws() -> None:
    """In a process of its own: triton reads the variable once, when it is imported."""
    laws = [str(HERE / f"test_operator_{law}.py") for law in ("laws", "extremes", "gradients")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-k", "triton", *laws],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and " skipped" not in done.stdout, done.stdout


KERNELS = {
    ("selective_scan", "forward"): {"N": 5, "SEGMENT": 32, "KEEP": True, "FEATURES": 16, "STATES": 8},
    ("selective_scan", "backward"): {"N": 5, "SEGMENT": 32, "FEATURES": 32, "STATES": 8},
    ("selective_scan", "step"): {"N": 5, "FEATURES": 16, "STATES": 8},
    ("linear_scan", "scan"): {"COMPLEX": True, "FEATURES": 64},
    ("linear_attention", "piece"): {"K": 5, "V": 3, "DECAYS": 5, "BONUS": True, "KEYS": 8, "VALUES": 4},
}


@pytest.mark.skipif(INTERPRETED, reason="an interpreted kernel is no kernel")
@pytest.mark.parametrize(("operator", "name"), KERNELS)
def test_kernels_compile_for_a_gpu(operator: str, name: str) -> None:
    kernel: Any = getattr(importlib.import_module(f"ssp_kernels.{operator}.triton_form"), f"_{name}_kernel")
    assert "cubin" in _compiled(kernel, KERNELS[operator, name])


def _compiled(kernel: Any, constants: dict[str, int]) -> Any:
    """The code that triton makes of a kernel for an A100, by kind."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def kind(argument: str) -> str:
        if argument in constants:
            return "constexpr"
        return "i32" if argument in ("L", "D", "H") else "i64" if "stride" in argument else "*fp32"

    source = ASTSource(kernel, {argument: kind(argument) for argument in kernel.arg_names}, constants)
    options = {"num_warps": 4, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm
