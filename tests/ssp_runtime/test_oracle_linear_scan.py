"""Layers on `linear_scan` and `lti_ssm` give the numbers of other libraries, or where there are none, of a loop written
from the paper's equations alone."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.mixers import build_mixer
from ssp_runtime.mixers.base import FixedCoefficients, Mixer, MixerConfig
from ssp_runtime.mixers.ema import EMA, EMAConfig
from ssp_runtime.mixers.gateloop import GateLoopConfig
from ssp_runtime.mixers.gss import GSSConfig
from ssp_runtime.mixers.lru import LRU, LRUConfig
from ssp_runtime.mixers.mingru import MinGRUConfig
from ssp_runtime.mixers.qrnn import QRNNConfig
from ssp_runtime.mixers.s5 import S5, S5Config
from ssp_runtime.mixers.sru import SRUConfig
from ssp_runtime.mixers.strongly_typed_rnn import StronglyTypedRNNConfig
from ssp_runtime.models.blocks import build_block
from ssp_runtime.models.config import BlockConfig, NormConfig
from tests import oracles
from tests.ssp_runtime.laws import folded_step
from tests.ssp_runtime.subjects import randomized

TOLERANCE = 1e-4  # against another implementation (MODELS.md, section 4)
EXACT = 1e-12  # against the same equations in float64
WIDTH, MODES = 16, 8  # of the oracles

IN_BOTH_FORMS = pytest.mark.parametrize("form", ["parallel", "recurrent"])

Parameters = dict[str, Tensor]
Discretization = Literal["zoh", "bilinear"]

GSS_NAMES = {
    "norm": "residual.norm",
    "to_u.0": "mixer.in_proj",
    "to_v.0": "mixer.ssm_proj",
    "dss.norm": "mixer.ssm.norm",
    "dss.param_D": "mixer.ssm.D",
    "dss": "mixer.ssm.coefficients",
    "to_gate": "mixer.gate_proj",
    "to_out": "mixer.out_proj",
}


@torch.no_grad()
@IN_BOTH_FORMS
def test_lrnnx_lru(form: str) -> None:
    oracle = oracles.entry("layers", "lrnnx_LRU")
    mixer = LRU(WIDTH, LRUConfig(d_state=MODES))
    mixer.load_state_dict(
        {name if name == "D" else f"coefficients.{name}": tensor for name, tensor in oracle["state_dict"].items()}
    )
    assert oracles.difference(_run(mixer, oracle["input"], form), oracle["output"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
@pytest.mark.parametrize(("discretization", "sign"), [("zoh", 1), ("bilinear", -1)])
def test_lrnnx_s5(discretization: Discretization, sign: int, form: str) -> None:
    """Its D is a matrix, its modes are kept without their conjugates, and its bilinear transform takes -A for A: modes
    that should decay grow."""
    oracle = oracles.entry("layers", f"lrnnx_S5_{discretization}")
    theirs: Parameters = oracle["state_dict"]
    decay, frequency = theirs["A"].unbind(-1)
    mixer = S5(WIDTH, S5Config(d_state=2 * MODES, discretization=discretization))
    ours = {
        "Lambda": sign * torch.stack([-F.softplus(decay), frequency], dim=-1),
        "B": torch.stack([theirs["B"], torch.zeros_like(theirs["B"])], dim=-1),
        "C": theirs["C"] / 2,
        "log_step": theirs["log_dt"],
    }
    mixer.load_state_dict(_s5(ours, torch.zeros(WIDTH)))
    y_BLD = _run(mixer, oracle["input"], form) + oracle["input"] @ theirs["D"]
    assert oracles.difference(y_BLD, oracle["output"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
def test_s5_pytorch(form: str) -> None:
    """Its modes are kept without their conjugates."""
    oracle = oracles.entry("layers", "s5pytorch_S5")
    theirs: Parameters = {name.removeprefix("seq."): tensor for name, tensor in oracle["state_dict"].items()}
    ours = {
        "Lambda": torch.view_as_real(theirs["Lambda"]),
        "B": theirs["B"],
        "C": torch.view_as_real(theirs["C"]) / 2,
        "log_step": theirs["log_step"],
    }
    mixer = S5(WIDTH, S5Config(d_state=2 * MODES))
    mixer.load_state_dict(_s5(ours, theirs["D"]))
    assert oracles.difference(_run(mixer, oracle["input"], form), oracle["output"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
def test_gateloop_transformer(form: str) -> None:
    """Its simple layer has real decays, keys of 1, and nothing after `q h`: ours with constant k, beta, gate."""
    oracle = oracles.entry("layers", "gateloop_simple")
    q, kv, alpha = oracle["state_dict"]["to_qkva.0.weight"].chunk(3)
    zeros, one = torch.zeros(WIDTH, WIDTH), torch.ones(WIDTH)
    block = build_block(BlockConfig(mixer=GateLoopConfig(), norm=NormConfig(eps=1e-12)), WIDTH)
    block.load_state_dict(
        {
            "residual.norm.weight": oracle["state_dict"]["norm.gamma"],
            "mixer.in_proj.weight": torch.cat([q, zeros, kv, alpha, zeros, zeros]),
            "mixer.in_proj.bias": torch.cat([0 * one, one, 0 * one, 0 * one, 0 * one, one]),
            "mixer.out_proj.weight": torch.eye(WIDTH) / F.silu(torch.tensor(1.0)),
            "mixer.out_proj.bias": 0 * one,
        }
    )
    y_BLD = _run(block, oracle["input"], form) - oracle["input"]
    assert oracles.difference(y_BLD, oracle["output"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
def test_gated_state_spaces_pytorch(form: str) -> None:
    """The whole block, with its norm and residual."""
    oracle = oracles.entry("layers", "gss_GSS")
    config = GSSConfig(expand=2, d_ssm=8, d_state=MODES)
    block = build_block(BlockConfig(mixer=config, norm=NormConfig(kind="layer")), WIDTH)
    block.load_state_dict({_gss_name(name): tensor for name, tensor in oracle["state_dict"].items()})
    assert oracles.difference(_run(block, oracle["input"], form), oracle["output"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
def test_mega_pytorch(form: str) -> None:
    """Its decay is `(1 - alpha) delta`, which is no value of the paper's `1 - alpha delta`: the coefficients are put in
    the place of ours."""
    oracle = oracles.entry("layers", "mega_MHEMA")
    theirs: Parameters = oracle["state_dict"]
    alpha, delta = torch.sigmoid(theirs["alphas"]), torch.sigmoid(theirs["dampen_factors"])
    mixer = EMA(WIDTH, EMAConfig(d_state=MODES))
    decay_DN = ((1 - alpha) * delta).expand(WIDTH, -1)
    mixer.coefficients = FixedCoefficients((decay_DN, alpha * theirs["expansion"].t(), theirs["reduction"].t()))
    mixer.D.zero_()
    assert oracles.difference(_run(mixer, oracle["input"], form), oracle["output"]) < TOLERANCE


def _mingru(p: Parameters, x_LD: Tensor) -> list[Tensor]:
    """The paper's equations, with its positive activation."""
    (W_h, W_z), (b_h, b_z) = p["in_proj.weight"].chunk(2), p["in_proj.bias"].chunk(2)
    h, outputs = torch.zeros(len(W_h)).double(), []
    for x in x_LD:
        z, u = 1 / (1 + torch.exp(-(W_z @ x + b_z))), W_h @ x + b_h
        candidate = torch.stack([v + 0.5 if v >= 0 else 1 / (1 + torch.exp(-v)) for v in u])
        h = (1 - z) * h + z * candidate
        outputs.append(p["out_proj.weight"] @ h)
    return outputs


def _sru(p: Parameters, x_LD: Tensor) -> list[Tensor]:
    """Equations 3 to 7 of version 1."""
    (W_f, W_r), (b_f, b_r) = p["gate_proj.weight"].chunk(2), p["gate_proj.bias"].chunk(2)
    c, outputs = torch.zeros(len(W_f)).double(), []
    for x in x_LD:
        f, r = torch.sigmoid(W_f @ x + b_f), torch.sigmoid(W_r @ x + b_r)
        c = f * c + (1 - f) * (p["value_proj.weight"] @ x)
        outputs.append(r * torch.tanh(c) + (1 - r) * x)
    return outputs


def _qrnn(p: Parameters, x_LD: Tensor) -> list[Tensor]:
    """Equations 1 and 4, zeros before the first token."""
    (now_z, now_f, now_o), (then_z, then_f, then_o) = (W.chunk(3) for W in p["in_proj.weight"].chunk(2, dim=1))
    b_z, b_f, b_o = p["in_proj.bias"].chunk(3)
    c, outputs = torch.zeros(len(now_z)).double(), []
    for before, x in zip([torch.zeros_like(x_LD[0]), *x_LD[:-1]], x_LD, strict=True):
        z = torch.tanh(now_z @ x + then_z @ before + b_z)
        f = torch.sigmoid(now_f @ x + then_f @ before + b_f)
        c = f * c + (1 - f) * z
        outputs.append(torch.sigmoid(now_o @ x + then_o @ before + b_o) * c)
    return outputs


def _strongly_typed_rnn(p: Parameters, x_LD: Tensor) -> list[Tensor]:
    """The paper's T-RNN."""
    h, outputs = torch.zeros_like(x_LD[0]), []
    for x in x_LD:
        f = torch.sigmoid(p["forget_proj.weight"] @ x + p["forget_proj.bias"])
        h = f * h + (1 - f) * (p["value_proj.weight"] @ x)
        outputs.append(h)
    return outputs


def _gateloop(p: Parameters, x_LD: Tensor) -> list[Tensor]:
    """Section 3 with one feature a head, in complex numbers."""
    h, outputs = torch.zeros(len(p["in_proj.weight"]) // 6, dtype=torch.complex128), []
    for x in x_LD:
        q, k, v, alpha, beta, gate = (p["in_proj.weight"] @ x + p["in_proj.bias"]).chunk(6)
        h = torch.sigmoid(alpha) * torch.exp(1j * beta) * h + k * v
        outputs.append(p["out_proj.weight"] @ ((q * h).real * gate * torch.sigmoid(gate)) + p["out_proj.bias"])
    return outputs


def _ema(p: Parameters, x_LD: Tensor) -> list[Tensor]:
    """Section 3.1, and a skip."""
    alpha, delta = torch.sigmoid(p["coefficients.alpha"]), torch.sigmoid(p["coefficients.delta"])
    h_DN, outputs = torch.zeros_like(alpha), []
    for x in x_LD:
        u_DN = p["coefficients.beta"] * x[:, None]
        h_DN = alpha * u_DN + (1 - alpha * delta) * h_DN
        outputs.append((p["coefficients.eta"] * h_DN).sum(1) + p["D"] * x)
    return outputs


PAPERS: dict[str, tuple[MixerConfig, Callable[[Parameters, Tensor], list[Tensor]]]] = {
    "mingru": (MinGRUConfig(), _mingru),
    "sru": (SRUConfig(), _sru),
    "qrnn": (QRNNConfig(), _qrnn),
    "strongly_typed_rnn": (StronglyTypedRNNConfig(), _strongly_typed_rnn),
    "gateloop": (GateLoopConfig(expand=2), _gateloop),
    "ema": (EMAConfig(d_state=3), _ema),
}


@torch.no_grad()
@IN_BOTH_FORMS
@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_equations(name: str, form: str) -> None:
    torch.manual_seed(0)
    config, loop = PAPERS[name]
    mixer = randomized(build_mixer(config, 5))
    x_BLD = torch.randn(2, 40, 5, dtype=torch.float64)
    parameters = {parameter: tensor.detach() for parameter, tensor in mixer.named_parameters()}
    expected = torch.stack([torch.stack(loop(parameters, x_LD)) for x_LD in x_BLD])
    assert oracles.difference(_run(mixer, x_BLD, form), expected) < EXACT


def _run(mixer: object, x_BLD: Tensor, form: str) -> Tensor:
    assert isinstance(mixer, Mixer)
    state = mixer.initial_state(len(x_BLD), like=x_BLD)
    y_BLD, _ = mixer(x_BLD, state) if form == "parallel" else folded_step(mixer, x_BLD, state)
    return torch.as_tensor(y_BLD)


def _s5(coefficients: Parameters, D: Tensor) -> Parameters:
    return {**{f"coefficients.{name}": tensor for name, tensor in coefficients.items()}, "D": D}


def _gss_name(theirs: str) -> str:
    if theirs in GSS_NAMES:
        return GSS_NAMES[theirs]
    module, parameter = theirs.rsplit(".", 1)
    return f"{GSS_NAMES[module]}.{parameter}"
