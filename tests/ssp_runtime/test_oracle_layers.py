"""Single layers of other libraries give the numbers that they gave."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.mixers.base import Mixer
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4d import S4D, S4DConfig
from ssp_runtime.models.blocks import build_block
from ssp_runtime.models.config import BlockConfig
from tests import oracles
from tests.ssp_runtime.laws import folded_step

TOLERANCE = 1e-4  # against another implementation (MODELS.md, section 4)

MAMBAPY_NAMES = (
    (r"norm\.weight", "residual.norm.weight"),
    (r"mixer\.(in_proj|out_proj)\.(.*)", r"mixer.\1.\2"),
    (r"mixer\.conv1d\.(.*)", r"mixer.inner.conv1d.\1"),
    (r"mixer\.A_log", "mixer.inner.ssp.coefficients.A_log"),
    (r"mixer\.(D|x_proj\.weight|dt_proj\.weight|dt_proj\.bias)", r"mixer.inner.ssp.\1"),
)


@torch.no_grad()
@pytest.mark.parametrize("form", ["parallel", "recurrent"])
def test_mambapy(form: str) -> None:
    """Two of its residual blocks: `x + mamba(rms_norm(x))`."""
    oracle = oracles.entry("layers", "mambapy_Mamba")
    x_BLD = oracle["input"]
    for i in range(2):
        block = build_block(BlockConfig(mixer=MambaConfig()), 16)
        block.load_state_dict(_renamed(oracle["state_dict"], f"layers.{i}."), strict=True)
        x_BLD = _run(block, x_BLD, form)
    assert oracles.difference(x_BLD, oracle["output"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("form", ["parallel", "recurrent"])
def test_lrnnx_s4d(form: str) -> None:
    """Its layer is `gelu(output_linear(gelu(gelu(s4d(x)))))`."""
    oracle = oracles.entry("layers", "lrnnx_S4D")
    theirs: dict[str, Tensor] = oracle["state_dict"]
    ours = {f"coefficients.{name}": theirs[name] for name in ("A_real", "A_imag", "inv_dt")}
    ours |= {f"coefficients.{name}": theirs[name][0] for name in ("B", "C")}
    mixer = S4D(16, S4DConfig(d_state=8))
    mixer.load_state_dict({**ours, "D": theirs["D"][0]}, strict=True)
    y_BLD = F.gelu(F.gelu(_run(mixer, oracle["input"], form)))
    y_BLD = F.gelu(F.linear(y_BLD, theirs["output_linear.0.weight"], theirs["output_linear.0.bias"]))
    assert oracles.difference(y_BLD, oracle["output"]) < TOLERANCE


def _run(mixer: object, x_BLD: Tensor, form: str) -> Tensor:
    assert isinstance(mixer, Mixer)
    state = mixer.initial_state(len(x_BLD), like=x_BLD)
    y_BLD, _ = mixer(x_BLD, state) if form == "parallel" else folded_step(mixer, x_BLD, state)
    return torch.as_tensor(y_BLD)


def _renamed(state_dict: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        re.sub(theirs, ours, name.removeprefix(prefix)): tensor
        for name, tensor in state_dict.items()
        for theirs, ours in MAMBAPY_NAMES
        if re.fullmatch(prefix + theirs, name)
    }
