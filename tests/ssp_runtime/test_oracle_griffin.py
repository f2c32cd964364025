"""RecurrentGemma as `transformers` computes it: RG-LRU, Griffin's recurrent block, window attention and what a model
has around them. Only its full forward without a cache is an oracle: it goes wrong where it continues one."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.mixers.griffin import GriffinConfig
from ssp_runtime.mixers.mlp import GatedMLPConfig
from ssp_runtime.mixers.rg_lru import RGLRU, RGLRUConfig, complement_in_squares
from ssp_runtime.mixers.window_attention import WindowAttention, WindowAttentionConfig
from ssp_runtime.models.config import (
    BlockConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)
from ssp_runtime.models.model import LanguageModel
from tests import oracles
from tests.ssp_runtime.laws import folded_step

TOLERANCE = 1e-4  # against another implementation (MODELS.md, section 4)
WIDTH, HEADS, WINDOW, VOCABULARY = 24, 3, 5, 17
BLOCK_TYPES = ("recurrent", "recurrent", "attention", "recurrent")

NAMES = (
    (r"model\.embed_tokens\.weight", "backbone.embedding.weight"),
    (r"model\.final_norm\.weight", "backbone.norm_f.weight"),
    (r"temporal_pre_norm\.weight", "0.residual.norm.weight"),
    (r"channel_pre_norm\.weight", "1.residual.norm.weight"),
    (r"mlp_block\.(.*)", r"1.mixer.\1"),
    (r"temporal_block\.(linear_x|linear_y|[qkv]_proj)\.(.*)", r"0.mixer.\1.\2"),
    (r"temporal_block\.(?:linear_out|o_proj)\.(.*)", r"0.mixer.out_proj.\1"),
    (r"temporal_block\.conv_1d\.(.*)", r"0.mixer.conv1d.\1"),
    (r"temporal_block\.rg_lru\.(input|recurrent)_gate_(.*)", r"0.mixer.rg_lru.\1_gate.\2"),
    (r"temporal_block\.rg_lru\.recurrent_param", "0.mixer.rg_lru.coefficients.Lambda"),
    (r"lm_head\.weight", "lm_head.weight"),
)


def _config(num_kv_heads: int) -> ModelConfig:
    norm = NormConfig(eps=1e-6)
    recurrent = GriffinConfig(rg_lru=RGLRUConfig(num_heads=HEADS))
    attention = WindowAttentionConfig(num_heads=HEADS, num_kv_heads=num_kv_heads, window=WINDOW)
    mlp = GatedMLPConfig(d_hidden=20, activation="gelu_tanh", bias=True)
    mixers = [mixer for kind in BLOCK_TYPES for mixer in (attention if kind == "attention" else recurrent, mlp)]
    scale = float(torch.tensor(WIDTH**0.5, dtype=torch.bfloat16))
    return ModelConfig(
        d_model=WIDTH,
        embedding=TokenEmbeddingConfig(vocab_size=VOCABULARY, scale=scale),
        layers=tuple(BlockConfig(mixer=mixer, norm=norm) for mixer in mixers),
        head=LanguageModelHeadConfig(soft_cap=3.0),
        final_norm=norm,
    )


def _renamed(name: str) -> str:
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
    inner = layer[2] if layer else name
    (ours,) = [re.sub(theirs, ours, inner) for theirs, ours in NAMES if re.fullmatch(theirs, inner)]
    if not layer:
        return ours
    block, rest = ours.split(".", 1)
    return f"backbone.layers.{2 * int(layer[1]) + int(block)}.{rest}"


def _converted(name: str, tensor: Tensor) -> Tensor:
    """Their norms weigh by 1 + w, and their gates' biases lie in a row for each head."""
    if name.endswith("norm.weight"):
        return 1 + tensor
    return tensor.flatten() if name.endswith("gate_bias") else tensor


@torch.no_grad()
@pytest.mark.parametrize("num_kv_heads", [1, HEADS])
def test_recurrent_gemma(num_kv_heads: int) -> None:
    """Sequences within the window and several times as long."""
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    torch.manual_seed(0)
    theirs = RecurrentGemmaForCausalLM(
        RecurrentGemmaConfig(
            num_hidden_layers=len(BLOCK_TYPES),
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=40,
            num_attention_heads=HEADS,
            num_key_value_heads=num_kv_heads,
            attention_window_size=WINDOW,
            logits_soft_cap=3.0,
            block_types=BLOCK_TYPES,
        )
    )
    for parameter in theirs.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    ours = LanguageModel(_config(num_kv_heads))
    state_dict = {_renamed(name): _converted(name, tensor) for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(state_dict, strict=True)
    for length in (1, WINDOW, 4 * WINDOW + 3):
        ids = torch.randint(VOCABULARY, (3, length))
        expected = theirs(ids, use_cache=False).logits
        parallel, _ = ours(ids, ours.initial_state(3))
        recurrent, _ = folded_step(ours, ids, ours.initial_state(3))
        assert oracles.difference(parallel, expected) < TOLERANCE
        assert oracles.difference(recurrent, expected) < TOLERANCE


@torch.no_grad()
def test_tokens_see_only_their_own_chunk() -> None:
    """Rotary scores depend on distances alone, so that a chunk gives the same wherever it stands."""
    torch.manual_seed(0)
    mixer = WindowAttention(WIDTH, WindowAttentionConfig(num_heads=HEADS, window=WINDOW, chunked=True)).double()
    x_BLD = torch.randn(2, 3 * WINDOW + 2, WIDTH, dtype=torch.float64)
    alone = torch.cat([mixer.encode(chunk) for chunk in torch.split(x_BLD, WINDOW, dim=1)], dim=1)
    torch.testing.assert_close(mixer.encode(x_BLD), alone, rtol=0, atol=1e-12)


def test_the_gradient_is_finite_where_the_decay_is_1() -> None:
    mixer = RGLRU(WIDTH, RGLRUConfig(num_heads=HEADS))
    x_BLD = (1e4 * torch.randn(2, 7, WIDTH)).requires_grad_()  # half of the gates are closed to the last bit
    torch.autograd.backward(mixer.encode(x_BLD).square().sum())
    for tensor in (x_BLD, *mixer.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all()


def test_the_input_scale_keeps_its_digits_where_the_decay_is_nearly_1() -> None:
    log_a = -torch.logspace(-30, 2, 100)
    expected = (-torch.expm1(2 * log_a.double())).sqrt()
    torch.testing.assert_close(complement_in_squares(log_a).double(), expected, rtol=1e-6, atol=0)


def test_served_in_bfloat16_a_long_memory_stays_one() -> None:
    """Rounded to bfloat16, decays of 0.999 would be 1."""
    mixer = RGLRU(WIDTH, RGLRUConfig(num_heads=HEADS))
    with torch.no_grad():
        mixer.coefficients.get_parameter("Lambda").fill_(torch.tensor(2e-4).expm1().log())
    x_BLD = torch.ones(1, 400, WIDTH)
    expected = mixer.encode(x_BLD)
    to_recurrent(mixer)
    served = mixer.bfloat16().encode(x_BLD.bfloat16())
    assert (served - expected).norm() < 2e-2 * expected.norm()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 0}, "choose a window of 1 or more, not 0"),
        ({"window": -3}, "choose a window of 1 or more, not -3"),
        ({"num_heads": 4, "num_kv_heads": 3}, "choose a num_heads that is a multiple of num_kv_heads"),
        ({"num_heads": 4, "num_kv_heads": 0}, "choose a num_heads that is a multiple of num_kv_heads"),
        ({"num_heads": 5}, "24 features cannot be divided among 5 heads"),
        ({"num_heads": 4}, "0.5 of 6 per head are 3: change partial_rotary_factor or num_heads"),
        ({"num_heads": 8, "partial_rotary_factor": 1}, "1 of 3 per head are 3: change partial_rotary_factor"),
    ],
)
def test_what_is_wrong_with_attention_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowAttention(WIDTH, WindowAttentionConfig(**changes))


def test_what_is_wrong_with_gates_is_said() -> None:
    with pytest.raises(ValueError, match="24 features cannot be divided among 5 heads"):
        RGLRU(WIDTH, RGLRUConfig(num_heads=5))
