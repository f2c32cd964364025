"""xLSTM gives the numbers of transformers' `xlstm`, run on the spot; sLSTM those of the paper's equations.

The package `xlstm` 2.0.6 had the same sLSTM layer to 1.4e-15 in float64 and 6e-7 in float32.
"""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.mixers.base import Fold
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.mixers.mlstm import MLSTM, MLSTMConfig
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.mixers.slstm import SLSTM, SLSTMConfig
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.state import State
from tests import oracles
from tests.ssp_runtime.laws import folded_step

TOLERANCE = 2e-5  # on logits of order 1 in float32; theirs and ours are as far from their values in float64

TRANSFORMERS_NAMES = (
    (r"backbone\.embeddings\.(.*)", r"backbone.embedding.\1"),
    (r"backbone\.out_norm\.(.*)", r"backbone.norm_f.\1"),
    (r"blocks\.(\d+)\.norm_mlstm", lambda m: f"layers.{2 * int(m[1])}.residual.norm"),
    (r"blocks\.(\d+)\.norm_ffn", lambda m: f"layers.{2 * int(m[1]) + 1}.residual.norm"),
    (r"blocks\.(\d+)\.mlstm_layer", lambda m: f"layers.{2 * int(m[1])}.mixer"),
    (r"blocks\.(\d+)\.ffn", lambda m: f"layers.{2 * int(m[1]) + 1}.mixer"),
    (r"mixer\.([qkv])\.", r"mixer.\1_proj."),
    (r"([iof]gate)_preact", r"\1"),
    (r"multihead_norm", "norm"),
    (r"proj_up_gate", "gate_proj"),
    (r"proj_up", "up_proj"),
    (r"proj_down", "down_proj"),
)
NORM = NormConfig(eps=1e-6)
MODEL = ModelConfig(
    d_model=24,
    embedding=TokenEmbeddingConfig(vocab_size=37),
    layers=(
        BlockConfig(mixer=MLSTMConfig(num_heads=3), norm=NORM),
        BlockConfig(mixer=GatedMLPConfig(d_hidden=64), norm=NORM),
    )
    * 2,
    head=LanguageModelHeadConfig(tied=False, soft_cap=30.0),
    final_norm=NORM,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def _theirs(**settings: Any) -> Any:
    """A tiny xLSTM with random weights, gates included, which would start at constants."""
    from transformers import xLSTMConfig, xLSTMForCausalLM

    config = xLSTMConfig(vocab_size=37, hidden_size=24, num_hidden_layers=2, num_heads=3, chunk_size=16, **settings)
    model: Any = xLSTMForCausalLM(config)
    model.eval()
    for name, parameter in model.named_parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
        if name.endswith("igate_preact.bias"):
            parameter.add_(9)
    return model


@torch.no_grad()
@pytest.mark.parametrize("form", ["parallel", "recurrent"])
@pytest.mark.parametrize("length", [1, 13, 37])  # theirs goes step by step, and in chunks of 16
def test_transformers(length: int, form: str) -> None:
    theirs, ids = _theirs(), torch.randint(37, (2, length))
    expected, ours = theirs(ids, use_cache=False).logits, _ours(theirs)
    assert oracles.difference(_run(ours, ids, ours.initial_state(2), form), expected) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("form", ["parallel", "recurrent"])
def test_the_backbone_of_transformers_in_float64(form: str) -> None:
    """Its form for training can be had so, in whole chunks."""
    theirs, ids = _theirs(mode="train", norm_reduction_force_float32=False).double(), torch.randint(37, (2, 48))
    theirs.backbone.out_norm.force_float32_reductions = False
    expected, ours = theirs.backbone(ids, use_cache=False).last_hidden_state, _ours(theirs).double()
    assert oracles.difference(_run(ours.backbone, ids, ours.initial_state(2), form), expected) < 1e-10


def _ours(theirs: Any) -> LanguageModel:
    model = LanguageModel(MODEL)
    model.load_state_dict({_renamed(name): tensor for name, tensor in theirs.state_dict().items()}, strict=True)
    return model


def _run(fold: Fold, x: Tensor, state: State, form: str) -> Tensor:
    y, _ = fold(x, state) if form == "parallel" else folded_step(fold, x, state)
    return torch.as_tensor(y)


def _renamed(name: str) -> str:
    for pattern, replacement in TRANSFORMERS_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize("form", ["parallel", "recurrent"])
@pytest.mark.parametrize("d_conv", [3, None])
def test_slstm_is_what_the_paper_says(d_conv: int | None, form: str) -> None:
    mixer, x = SLSTM(6, SLSTMConfig(num_heads=2, d_conv=d_conv)).double(), torch.randn(2, 20, 6, dtype=torch.float64)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    wanted = (x.requires_grad_(), *mixer.parameters())
    found, expected = _run(mixer, x, mixer.initial_state(2, like=x), form), _slstm(mixer, x)
    assert oracles.difference(found, expected.detach()) < 1e-12
    gradients = (torch.autograd.grad(y.square().sum() + y.sin().sum(), wanted) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert oracles.difference(ours, theirs) < 1e-10


@pytest.mark.parametrize("forget", [-1e3, 1e3])
@pytest.mark.parametrize("write", [-1e3, 1e3])
def test_gates_of_a_thousand_overflow_nowhere(write: float, forget: float) -> None:
    """Decays of 0 and 1, and a factor of exp(1000), in float32."""
    mlstm = MLSTM(6, MLSTMConfig(num_heads=2, expand_k=1, gate_soft_cap=None))
    slstm = SLSTM(6, SLSTMConfig(num_heads=2))
    with torch.no_grad():
        mlstm.igate.bias.fill_(write)
        mlstm.fgate.bias.fill_(forget)
        slstm.b[:, 0], slstm.b[:, 1] = write, forget
    for mixer in (mlstm, slstm):
        x = torch.randn(2, 40, 6, requires_grad=True)
        y, state = mixer(x, mixer.initial_state(2, like=x))
        stepped, _ = folded_step(mixer, x, mixer.initial_state(2, like=x))
        assert oracles.difference(stepped, y.detach()) < 1e-5
        wanted = (x, *mixer.parameters())
        gradients = torch.autograd.grad(y.square().sum(), wanted, allow_unused=True, materialize_grads=True)
        assert all(tensor.isfinite().all() for tensor in (y, *state.values(), *gradients))


def _convolved(conv: ShortConvolution, x_BLD: Tensor) -> Tensor:
    padding = conv.weight.shape[-1] - 1
    y_BDL = F.conv1d(x_BLD.mT, conv.weight, conv.bias, padding=padding, groups=len(conv.weight))
    return y_BDL[..., : x_BLD.shape[1]].mT


def _slstm(mixer: SLSTM, x_BLD: Tensor) -> Tensor:
    """Equations 8 to 14 of the paper as they stand, without a stabilizer; W and R block-diagonal (section 2.2)."""
    W, R = ([_dense(weights[:, :, gate]) for gate in range(4)] for weights in (mixer.W, mixer.R))
    b = [mixer.b[:, gate].flatten() for gate in range(4)]
    u_BLD = x_BLD if mixer.conv1d is None else F.silu(_convolved(mixer.conv1d, x_BLD))
    c = n = h = torch.zeros_like(x_BLD[:, 0])
    outputs = []
    for t in range(x_BLD.shape[1]):
        seen = (u_BLD[:, t], u_BLD[:, t], x_BLD[:, t], x_BLD[:, t])
        i, f, z, o = (seen[gate] @ W[gate].T + h @ R[gate].T + b[gate] for gate in range(4))
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        outputs.append(F.group_norm(h, len(mixer.W), mixer.norm.weight, eps=1e-5))
    return torch.stack(outputs, dim=1)


def _dense(blocks_HKK: Tensor) -> Tensor:
    return torch.as_tensor(torch.block_diag(*blocks_HKK.mT))  # type: ignore[no-untyped-call]  # torch's
