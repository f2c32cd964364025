"""S4 and its diagonal kin give the numbers that the source thesis' code gave in float32; S4 starts as HiPPO-LegS."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.mixers.dss import DSS, DSSConfig
from ssp_runtime.mixers.s4 import S4, S4Coefficients, S4Config, recovered_C
from ssp_runtime.mixers.s4d import S4D, S4DConfig
from ssp_runtime.mixers.state_space import StateSpace, StateSpaceCoefficients
from tests import oracles
from tests.ssp_runtime.laws import folded_step

KERNELS: dict[str, Callable[[], StateSpace]] = {
    "kernel_dplr_l_max32": lambda: S4(4, S4Config(d_state=8)),
    "kernel_dplr_l_maxNone": lambda: S4(4, S4Config(d_state=8)),
    "kernel_diag_disczoh": lambda: S4D(4, S4DConfig(d_state=8)),
    "kernel_diag_discdss": lambda: DSS(4, DSSConfig(d_state=8, l_train=32)),
}
# Of outputs up to 0.2. Their `exp(z) - 1` in float32 costs DSS 6e-6; our own float64 is 1e-7 away from our float32.
TOLERANCE = dict.fromkeys(KERNELS, 5e-7) | {"kernel_diag_discdss": 1e-5}


@torch.no_grad()
@pytest.mark.parametrize("form", ["parallel", "recurrent"])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_of_the_thesis(name: str, form: str) -> None:
    oracle = oracles.entry("thesis", name)
    mixer = _loaded(KERNELS[name](), oracle["state_dict"])
    mixer.D.zero_()
    assert oracles.difference(_run(mixer, oracle["u"].mT, form).mT, oracle["y"]) < TOLERANCE[name]
    impulse_BLD = torch.zeros(1, 32, 4).index_fill(1, torch.tensor([0]), 1)
    assert oracles.difference(_run(mixer, impulse_BLD, form).mT, oracle["k"]) < TOLERANCE[name]


@torch.no_grad()
@pytest.mark.parametrize("name", ["mamba_s4_legs_cls_tok", "mamba_s4_legs_lmax_cls_tok", "mamba_s4_lm"])
@pytest.mark.parametrize("layer", [0, 1])
def test_what_a_run_of_the_thesis_made_of_c_is_undone(name: str, layer: int) -> None:
    """Their C tilde is rounded to float32, and `1 - Abar^32` has condition numbers up to 42."""
    oracle = oracles.entry("thesis", name)
    before, after = (_kernel(oracle[which], layer) for which in ("state_dict_before", "state_dict_after"))
    plain, recovered = (_loaded(S4(32, S4Config(d_state=8)), kernel) for kernel in (before, after))
    assert int(before["l_kernel"]) == 0 and int(after["l_kernel"]) == 32
    assert oracles.difference(_readout(recovered), _readout(plain)) < 1e-4 < oracles.difference(after["C"], before["C"])
    torch.manual_seed(0)
    x_BLD = torch.randn(3, 64, 32)  # longer than the kernel
    assert oracles.difference(_run(recovered, x_BLD, "parallel"), _run(plain, x_BLD, "parallel")) < 1e-5


@torch.no_grad()
def test_s4_starts_as_hippo_legs() -> None:
    """Against the matrix itself (S4, equation 2), dense and real in float64, under the dense bilinear transform.

    From the paper only. The outputs are `B^T s`, which does not depend on the basis.
    """
    mixer, states = S4(3, S4Config(d_state=10)).double(), torch.arange(10, dtype=torch.float64)
    assert isinstance(mixer.coefficients, S4Coefficients)
    mixer.coefficients.C.copy_(mixer.coefficients.B * torch.tensor([1, -1]))
    mixer.D.zero_()
    B_S, x_BLD = torch.sqrt(2 * states + 1), torch.randn(2, 50, 3, dtype=torch.float64)
    A_SS = -torch.outer(B_S, B_S).tril(-1) - torch.diag(states + 1)
    half_DSS = mixer.coefficients.inv_dt.exp()[..., None] / 2 * A_SS
    inverse_DSS = torch.linalg.inv(torch.eye(10) - half_DSS)
    state_BDS, expected = torch.zeros(2, 3, 10, dtype=torch.float64), []
    for x_BD in x_BLD.unbind(1):
        right_BDS = torch.einsum("dst,bdt->bds", torch.eye(10) + half_DSS, state_BDS)
        right_BDS = right_BDS + x_BD[..., None] * mixer.coefficients.inv_dt.exp() * B_S
        state_BDS = torch.einsum("dst,bdt->bds", inverse_DSS, right_BDS)
        expected.append(state_BDS @ B_S)
    expected_BLD = torch.stack(expected, dim=1)
    found_BLD = _run(mixer, x_BLD, "parallel")
    assert oracles.difference(found_BLD, expected_BLD) < 1e-6 * expected_BLD.abs().max()  # parameters are float32


@torch.no_grad()
@pytest.mark.parametrize("form", ["parallel", "recurrent"])
def test_s4d_under_the_bilinear_transform(form: str) -> None:
    """From the paper only: `s_t - s_{t-1} = dt (A (s_t + s_{t-1}) / 2 + B x_t)`, solved for s_t, in float64."""
    mixer = S4D(3, S4DConfig(d_state=10, discretization="bilinear")).double()
    assert isinstance(mixer.coefficients, StateSpaceCoefficients)
    (A_DN, B_DN, dt_D1), C_DN = mixer.coefficients.continuous(), torch.view_as_complex(mixer.coefficients.C)
    x_BLD, state_BDN, expected = torch.randn(2, 50, 3, dtype=torch.float64), torch.zeros(2, 3, 5), []
    for x_BD in x_BLD.unbind(1):
        known_BDN = state_BDN + dt_D1 * (A_DN / 2 * state_BDN + B_DN * x_BD[..., None])
        state_BDN = known_BDN / (1 - dt_D1 * A_DN / 2)
        expected.append(2 * (C_DN * state_BDN).real.sum(-1) + mixer.D * x_BD)
    assert oracles.difference(_run(mixer, x_BLD, form), torch.stack(expected, dim=1)) < 1e-12


def _kernel(state_dict: dict[str, Any], layer: int) -> dict[str, Tensor]:
    prefix = f"layers.{layer}.mixer.s4fft.fftconv.kernel."
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def _loaded(mixer: StateSpace, kernel: dict[str, Tensor]) -> StateSpace:
    parameters = {name: tensor.squeeze(0) for name, tensor in kernel.items() if name != "l_kernel"}
    mixer.coefficients.load_state_dict(parameters, strict=True)
    if isinstance(mixer.coefficients, S4Coefficients):
        mixer.coefficients.C.copy_(recovered_C(mixer.coefficients, int(kernel["l_kernel"])))
    return mixer


def _readout(mixer: StateSpace) -> Tensor:
    assert isinstance(mixer.coefficients, S4Coefficients)
    return mixer.coefficients.C


def _run(mixer: StateSpace, x_BLD: Tensor, form: str) -> Tensor:
    state = mixer.initial_state(len(x_BLD), like=x_BLD)
    y_BLD, _ = mixer(x_BLD, state) if form == "parallel" else folded_step(mixer, x_BLD, state)
    return torch.as_tensor(y_BLD)
