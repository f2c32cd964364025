"""The operator `linear_attention`, and the layers on it, give the numbers that other libraries gave."""

import itertools
import re
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_kernels import linear_attention, linear_scan
from ssp_runtime.mixers.base import Fold
from ssp_runtime.mixers.hgrn2 import HGRN2, HGRN2Config
from ssp_runtime.mixers.linear_attention import LinearAttention, LinearAttentionConfig
from ssp_runtime.mixers.mamba2 import Mamba2, Mamba2Config
from ssp_runtime.mixers.retnet import RetNet, RetNetConfig
from ssp_runtime.models.config import BlockConfig, LanguageModelHeadConfig, ModelConfig, TokenEmbeddingConfig
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.run import ParallelRun, Recurrence, RecurrentRun
from ssp_runtime.state import initial_state
from tests import oracles
from tests.ssp_runtime.laws import folded_step

TOLERANCE = 1e-5  # against other implementations, all in float32; found: at most 2.4e-6
IN_BOTH_FORMS = pytest.mark.parametrize("form", ["parallel", "recurrent"])


@IN_BOTH_FORMS
@pytest.mark.parametrize("name", ["gla", "simple_gla", "linear_attn", "retention"])
def test_flash_linear_attention(name: str, form: str) -> None:
    """Its queries are scaled by K^(-1/2); its retention has heads before tokens and tells no states."""
    oracle = oracles.entry("recurrences", name)
    given: dict[str, Tensor] = oracle["inputs"]
    q, k, v, y = given["q"], given["k"], given["v"], oracle["outputs"]["0"]
    if name == "retention":
        q, k, v, y = (t.transpose(1, 2) for t in (q, k, v, y))
    state = given.get("initial_state", torch.zeros(2, 2, 8, 8))
    tensors = (k, v, _log_decay(name, given), None)
    ours, final = _run(linear_attention, q * q.shape[-1] ** -0.5, *tensors, state=state, form=form)
    assert oracles.difference(ours, y) < TOLERANCE
    assert oracles.difference(final, oracle["outputs"].get("1", final)) < TOLERANCE


def _log_decay(name: str, given: dict[str, Tensor]) -> Tensor:
    """(B, L, H, K) or (B, L, H, 1)."""
    if name == "gla":
        return given["gk"]
    if name == "simple_gla":
        return given["g"][..., None]
    fixed_H = torch.log1p(-(2 ** (-5 - torch.arange(2.0)))) if name == "retention" else torch.zeros(2)
    return fixed_H[:, None].expand(2, 24, 2, 1)


@IN_BOTH_FORMS
def test_hgrn_of_flash_linear_attention(form: str) -> None:
    oracle = oracles.entry("recurrences", "hgrn")
    given: dict[str, Tensor] = oracle["inputs"]
    h, final = _run(linear_scan, given["x"], given["g"].exp(), state=given["initial_state"], form=form)
    assert oracles.difference(h, oracle["outputs"]["0"]) < TOLERANCE
    assert oracles.difference(final, oracle["outputs"]["1"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
@pytest.mark.parametrize("n_groups", [1, 2])
def test_mamba_ssm(n_groups: int, form: str) -> None:
    """Its Mamba2 module."""
    oracle = oracles.entry("mamba2", str(n_groups))
    mixer = Mamba2(32, Mamba2Config(d_state=16, head_dim=8, n_groups=n_groups))
    mixer.load_state_dict({_mamba2_name(name): tensor for name, tensor in oracle["sd"].items()}, strict=True)
    assert oracles.difference(_outputs(mixer, oracle["x"], form), oracle["y"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
@pytest.mark.parametrize("n_groups", [1, 2])
def test_transformers_mamba2(n_groups: int, form: str) -> None:
    """A whole language model with random weights, run here; step sizes reach both ends of their limits."""
    theirs = _transformers_mamba2(n_groups)
    ours = LanguageModel(_mamba2_model(n_groups))
    ours.load_state_dict({_mamba2_name(name): tensor for name, tensor in theirs.state_dict().items()}, strict=True)
    ids_BL = torch.randint(61, (2, 70), generator=torch.Generator().manual_seed(1))
    expected = theirs(ids_BL, use_cache=False).logits
    assert oracles.difference(_outputs(ours, ids_BL, form), expected) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
def test_torchscale(form: str) -> None:
    """Its retention. Its parallel form also divides scores by their sum where that exceeds 1, which no recurrence can;
    here it never does."""
    oracle = oracles.entry("layers", "torchscale_retention")
    mixer = RetNet(16, RetNetConfig(num_heads=2, expand_v=1))
    mixer.load_state_dict(oracle["state_dict"], strict=True)
    assert oracles.difference(_outputs(mixer, oracle["input"], form), oracle["output"]) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
def test_hgrn2_is_what_its_paper_says(form: str) -> None:
    """The recurrence feature by feature, from the paper alone but for the scale of the queries, 4^(-1/2)."""
    torch.manual_seed(0)
    mixer, x_BLD = HGRN2(12, HGRN2Config(expand_ratio=4, lower_bound=0.3)).double(), torch.randn(2, 9, 12).double()
    f, i, q = 0.3 + 0.7 * torch.sigmoid(mixer.f_proj(x_BLD)), mixer.i_proj(x_BLD), F.silu(mixer.q_proj(x_BLD)) / 2
    S, y_BLD = torch.zeros(2, 12, 12).double(), torch.zeros(2, 9, 12).double()
    for t, kept, read in itertools.product(range(9), range(12), range(12)):
        if kept // 4 == read // 4:  # of one head
            S[:, kept, read] = f[:, t, kept] * S[:, kept, read] + (1 - f[:, t, kept]) * i[:, t, read]
            y_BLD[:, t, read] += q[:, t, kept] * S[:, kept, read]
    torch.testing.assert_close(_outputs(mixer, x_BLD, form), mixer.out_proj(mixer.g_norm(y_BLD)), rtol=0, atol=1e-12)


@torch.no_grad()
@IN_BOTH_FORMS
@pytest.mark.parametrize(("feature_map", "normalize"), [("elu", True), ("elu", False), ("identity", False)])
def test_linear_attention_is_attention(feature_map: Literal["elu", "identity"], normalize: bool, form: str) -> None:
    """With all weights at once, from the paper alone (equation 8, its sums up to each token)."""
    torch.manual_seed(0)
    config = LinearAttentionConfig(num_heads=2, feature_map=feature_map, normalize=normalize)
    mixer, x_BLD = LinearAttention(10, config).double(), torch.randn(2, 40, 10).double()
    q, k, v = (proj(x_BLD).view(2, 40, 2, 5) for proj in (mixer.q_proj, mixer.k_proj, mixer.v_proj))
    if feature_map == "elu":
        q, k = (torch.where(t > 0, t + 1, t.exp()) for t in (q, k))
    weights_BHLL = torch.einsum("bihk,bjhk->bhij", q, k).tril()
    if normalize:
        weights_BHLL = weights_BHLL / weights_BHLL.sum(-1, keepdim=True)
    y_BLD = mixer.out_proj(torch.einsum("bhij,bjhv->bihv", weights_BHLL, v).flatten(-2))
    torch.testing.assert_close(_outputs(mixer, x_BLD, form), y_BLD, rtol=0, atol=1e-6 if normalize else 1e-12)


TIME_STEP_LIMIT = (0.01, 0.05)


def _mamba2_model(n_groups: int) -> ModelConfig:
    mixer = Mamba2Config(d_state=10, head_dim=6, n_groups=n_groups, time_step_limit=TIME_STEP_LIMIT)
    return ModelConfig(
        d_model=24,
        embedding=TokenEmbeddingConfig(vocab_size=61),
        layers=(BlockConfig(mixer=mixer),) * 2,
        head=LanguageModelHeadConfig(tied=False),
    )


def _transformers_mamba2(n_groups: int) -> torch.nn.Module:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    torch.manual_seed(0)
    config = Mamba2Config(
        num_heads=8,
        head_dim=6,
        vocab_size=61,
        hidden_size=24,
        state_size=10,
        num_hidden_layers=2,
        n_groups=n_groups,
        chunk_size=32,
        time_step_limit=TIME_STEP_LIMIT,
        tie_word_embeddings=False,
    )
    model: torch.nn.Module = Mamba2ForCausalLM(config)
    return model


def _mamba2_name(theirs: str) -> str:
    """Ours, for a parameter of a layer or a model."""
    ours = theirs.replace("backbone.embeddings.", "backbone.embedding.").replace("A_log", "coefficients.A_log")
    return re.sub(r"(layers\.\d+)\.norm\.", r"\1.residual.norm.", ours)


def _run(
    operator: Recurrence, first: Tensor, *others: Tensor | None, state: Tensor, form: str
) -> tuple[Tensor, Tensor]:
    """Outputs and last state of an operator, whose tensors are all sequences."""
    if form == "parallel":
        run = ParallelRun({"state": state})
        return run(operator, first, *others, state="state"), run.new["state"]
    outputs = []
    for t in range(first.shape[1]):
        step = RecurrentRun({"state": state})
        tokens = (None if tensor is None else tensor[:, t] for tensor in (first, *others))
        outputs.append(step(operator, *tokens, state="state"))
        state = step.new["state"]
    return torch.stack(outputs, dim=1), state


def _outputs(fold: Fold, x_BL: Tensor, form: str) -> Tensor:
    state = initial_state(fold.state_spec, len(x_BL), next(fold.parameters()).dtype, x_BL.device)
    y_BL, _ = fold(x_BL, state) if form == "parallel" else folded_step(fold, x_BL, state)
    return torch.as_tensor(y_BL)
