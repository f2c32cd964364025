"""The delta rule and its layers give the numbers of other people's code: flash-linear-attention's loops, the layers of
transformers; DeltaNet's layer, for which there is none that runs here, those of its paper's equations."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import delta_rule
from ssp_kernels.registry import chosen
from ssp_runtime.mixers.base import Mixer
from ssp_runtime.mixers.delta_heads import replacing
from ssp_runtime.mixers.deltanet import DeltaNet, DeltaNetConfig
from ssp_runtime.mixers.gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from ssp_runtime.mixers.kda import KDA, KDAConfig
from ssp_runtime.run import ParallelRun, RecurrentRun
from tests import oracles
from tests.ssp_runtime.laws import folded_step
from tests.ssp_runtime.subjects import randomized

TOLERANCE = 2e-5  # against another implementation in float32, on numbers of order 1 to 10
LENGTH = 150  # more than two chunks

IN_BOTH_FORMS = pytest.mark.parametrize("form", ["parallel", "recurrent"])


@pytest.mark.parametrize("name", ["delta_rule", "gated_delta_rule", "kda", "dplr_rwkv7"])
@pytest.mark.parametrize("form", ["reference", "torch", "recurrent"])
def test_recurrences(name: str, form: str) -> None:
    oracle = oracles.entry("recurrences", name)
    heads_first = name in ("delta_rule", "dplr_rwkv7")
    inputs = {
        key: _with_features(tensor, heads_first)
        for key, tensor in oracle["inputs"].items()
        if isinstance(tensor, Tensor) and key != "initial_state"
    }
    y_BLHV, state_BHKV = _run_operator(_arguments(name, **inputs), oracle["inputs"]["initial_state"], form)
    expected = oracle["outputs"]["0"].transpose(1, 2) if heads_first else oracle["outputs"]["0"]
    assert oracles.difference(y_BLHV, expected) < TOLERANCE
    assert oracles.difference(state_BHKV, oracle["outputs"]["1"]) < TOLERANCE


def _with_features(tensor: Tensor, heads_first: bool) -> Tensor:
    """(B, L, H, K), of (B, H, L, K) or, if there is one number a head, without K."""
    tensor = tensor if tensor.ndim == 4 else tensor[..., None]
    return tensor.transpose(1, 2) if heads_first else tensor


def _arguments(name: str, q: Tensor, k: Tensor, v: Tensor, **others: Tensor) -> tuple[Tensor, ...]:
    if name == "dplr_rwkv7":  # its alpha reads, its beta adds
        return q * q.shape[-1] ** -0.5, k, v, others["gk"], others["beta"], others["alpha"]
    return replacing(q, k, v, others["beta"], others.get("g", torch.zeros_like(others["beta"])))


def _run_operator(tensors: tuple[Tensor, ...], state_BHKV: Tensor, form: str) -> tuple[Tensor, Tensor]:
    if form != "recurrent":
        run = ParallelRun({"state": state_BHKV})
        with chosen(form):
            return run(delta_rule, *tensors, state="state"), run.new["state"]
    outputs = []
    for t in range(tensors[0].shape[1]):
        step = RecurrentRun({"state": state_BHKV})
        outputs.append(step(delta_rule, *(tensor[:, t] for tensor in tensors), state="state"))
        state_BHKV = step.new["state"]
    return torch.stack(outputs, dim=1), state_BHKV


@torch.no_grad()
@IN_BOTH_FORMS
def test_transformers_qwen3_next(form: str) -> None:
    """Its layer of Gated DeltaNet, which projects queries, keys, values and gates of a head next to each other."""
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = Qwen3NextConfig(
        hidden_size=24,
        linear_num_key_heads=3,
        linear_num_value_heads=3,
        linear_key_head_dim=6,
        linear_value_head_dim=12,
        rms_norm_eps=1e-5,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    theirs = _randomized(Qwen3NextGatedDeltaNet(config, 0))
    parameters = _renamed(theirs.state_dict(), {"norm": "o_norm"})
    projections = torch.split(parameters.pop("in_proj_qkvz.weight").view(3, 36, 24), [6, 6, 12, 12], dim=1)
    for name, weight in zip(("heads.q_proj", "heads.k_proj", "heads.v_proj", "g_proj"), projections, strict=True):
        parameters[f"{name}.weight"] = weight.flatten(0, 1)
    beta, decay = parameters.pop("in_proj_ba.weight").view(3, 2, 24).unbind(1)
    parameters |= {"heads.b_proj.weight": beta, "a_proj.weight": decay}
    ours = GatedDeltaNet(24, GatedDeltaNetConfig(num_heads=3))
    _assert_same_outputs(ours, parameters, theirs, form)


@torch.no_grad()
@IN_BOTH_FORMS
def test_transformers_olmo_hybrid(form: str) -> None:
    """Its layer of Gated DeltaNet with negative eigenvalues."""
    from transformers import OlmoHybridConfig
    from transformers.models.olmo_hybrid.modeling_olmo_hybrid import OlmoHybridGatedDeltaNet

    config = OlmoHybridConfig(hidden_size=24, num_attention_heads=3, num_hidden_layers=2)
    theirs = _randomized(OlmoHybridGatedDeltaNet(config, 0))
    ours = GatedDeltaNet(24, GatedDeltaNetConfig(num_heads=3, allow_negative_eigenvalues=True))
    _assert_same_outputs(ours, _renamed(theirs.state_dict(), {"o_proj": "out_proj"}), theirs, form)


@torch.no_grad()
@IN_BOTH_FORMS
def test_transformers_kimi_linear(form: str) -> None:
    """Its layer of KDA."""
    from transformers import KimiLinearConfig
    from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

    config = KimiLinearConfig(
        hidden_size=20, linear_num_heads=3, linear_head_dim=8, num_hidden_layers=1, layer_types=["linear_attention"]
    )
    theirs = _randomized(KimiLinearDeltaAttention(config, 0))
    names = {
        "forget_gate.dt_bias": "dt_bias",
        "forget_gate.A_log": "A_log",
        "forget_gate.f_a_proj": "f_proj.0",
        "forget_gate.f_b_proj": "f_proj.1",
        "g_a_proj": "g_proj.0",
        "g_b_proj": "g_proj.1",
        "o_proj": "out_proj",
    }
    parameters = _renamed(
        {name: t.flatten() if name.endswith("A_log") else t for name, t in theirs.state_dict().items()}, names
    )
    ours = KDA(20, KDAConfig(num_heads=3, expand_k=24 / 20, expand_v=24 / 20))
    _assert_same_outputs(ours, parameters, theirs, form)


OF_THE_HEADS = ("q_proj", "k_proj", "v_proj", "b_proj", "conv1d")
OF_THE_DECAY = {"A_log": "decay.coefficients.A_log", "dt_bias": "decay.dt_bias"}


def _renamed(parameters: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Published names as ours, the given ones first."""
    return {_our_name(theirs, names): tensor for theirs, tensor in parameters.items()}


def _our_name(theirs: str, names: dict[str, str]) -> str:
    given = next(
        (after + theirs.removeprefix(before) for before, after in names.items() if theirs.startswith(before)), theirs
    )
    name = OF_THE_DECAY.get(given, given)
    return f"heads.{name}" if name.startswith(OF_THE_HEADS) else name


def _randomized(module: nn.Module) -> nn.Module:
    """With all parameters random, those that a module leaves to its model's initialization, too."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        scale = 1.0 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def _assert_same_outputs(ours: Mixer, parameters: dict[str, Tensor], theirs: nn.Module, form: str) -> None:
    ours.load_state_dict(parameters, strict=True)
    width = parameters["heads.q_proj.weight"].shape[1]
    x_BLD = torch.randn(2, LENGTH, width, generator=torch.Generator().manual_seed(1))
    assert oracles.difference(_outputs(ours, x_BLD, form), theirs(x_BLD)) < TOLERANCE


def _outputs(ours: Mixer, x_BLD: Tensor, form: str) -> Tensor:
    state = ours.initial_state(len(x_BLD), like=x_BLD)
    y_BLD, _ = ours(x_BLD, state) if form == "parallel" else folded_step(ours, x_BLD, state)
    return torch.as_tensor(y_BLD)


@torch.no_grad()
@IN_BOTH_FORMS
@pytest.mark.parametrize("beta_range", [1, 2])
def test_deltanet_is_what_its_paper_says(form: str, beta_range: int) -> None:
    """From the paper only, in float64."""
    torch.manual_seed(0)
    config = DeltaNetConfig(num_heads=2, expand_v=1.5, allow_negative_eigenvalues=beta_range == 2)
    mixer = randomized(DeltaNet(8, config))
    x_BLD = torch.randn(2, LENGTH, 8, dtype=torch.float64)
    expected = _deltanet(mixer, x_BLD, beta_range)
    assert oracles.difference(_outputs(mixer, x_BLD, form), expected) < 1e-10


def _deltanet(mixer: DeltaNet, x_BLD: Tensor, beta_range: int) -> Tensor:
    """Old values under each key are replaced, by beta, with new ones; one row, one head, one token after the other."""
    heads, outputs = mixer.heads, torch.zeros(len(x_BLD), LENGTH, 2, 6, dtype=torch.float64)
    projected = torch.cat([F.linear(x_BLD, p.weight) for p in (heads.q_proj, heads.k_proj, heads.v_proj)], dim=-1)
    assert heads.conv1d is not None
    weight = heads.conv1d.weight
    convolved = F.silu(
        F.conv1d(projected.mT, weight, padding=weight.shape[-1] - 1, groups=len(weight))[..., :LENGTH].mT
    )
    beta_BLH = beta_range * torch.sigmoid(F.linear(x_BLD, heads.b_proj.weight))
    for row, h in ((row, h) for row in range(len(x_BLD)) for h in range(2)):
        S = torch.zeros(6, 4, dtype=torch.float64)  # values x keys, as in the paper
        for t in range(LENGTH):
            q, k, v = (
                convolved[row, t, 4 * h :][:4],
                convolved[row, t, 8 + 4 * h :][:4],
                convolved[row, t, 16 + 6 * h :][:6],
            )
            q, k = (a / (a @ a + 1e-6).sqrt() for a in (q, k))
            S = S + beta_BLH[row, t, h] * torch.outer(v - S @ k, k)
            outputs[row, t, h] = S @ q / 4**0.5
    normed = outputs / (outputs.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.o_norm.weight
    return F.linear(normed.flatten(-2), mixer.out_proj.weight)
