"""Trained models of RWKV-4, 5 and 7 give the numbers that other implementations got from their checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssp_kernels import linear_attention
from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Pickle, Tensors
from ssp_runtime.formats.foreign.base import assemble
from ssp_runtime.formats.foreign.rwkv import NAMES, rwkv
from ssp_runtime.mixers.rwkv5 import RWKV5, RWKV5Config, Version
from ssp_runtime.mixers.rwkv6 import RWKV6, RWKV6Config
from ssp_runtime.models.architectures import model_config
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.state import State
from tests import oracles
from tests.greedy import Greedy
from tests.ssp_runtime.laws import folded_step
from tests.ssp_runtime.subjects import randomized

CHECKPOINTS = ("4v0-660K", "5v1-730K", "7v0-834K")
TOLERANCE = 1e-5  # of logits of order 10
FORMS: dict[str, Callable[..., tuple[Tensor, State]]] = {
    "parallel": lambda model, ids, state: model(ids, state),
    "recurrent": folded_step,
}
IN_BOTH_FORMS = pytest.mark.parametrize("form", FORMS)
OF_ALL = pytest.mark.parametrize("name", CHECKPOINTS)


@OF_ALL
@IN_BOTH_FORMS
def test_logits_at_all_positions(name: str, form: str) -> None:
    """Of BlinkDL's package `rwkv` 0.8.32 in float32; ours in float64, so that all roundings are theirs."""
    logits, _ = _run(form, _load(name).double(), _oracle(name)["ids"])
    assert oracles.difference(logits, _oracle(name)["logits_all_positions"]) < TOLERANCE


@OF_ALL
@IN_BOTH_FORMS
def test_logits_in_float32(name: str, form: str) -> None:
    logits, _ = _run(form, _load(name), _oracle(name)["ids"])
    difference_L = (logits - _oracle(name)["logits_all_positions"]).abs().amax(-1)
    if name.startswith("5"):
        # The norm of heads that are still nearly empty blows up roundings: those of the weights to float32 alone are
        # 1.6e-5 in the logits there, computed in float64.
        assert difference_L[1:4].max() < 4 * TOLERANCE
        difference_L[1:4] = 0
    assert difference_L.max() < TOLERANCE


@OF_ALL
@IN_BOTH_FORMS
def test_final_states(name: str, form: str) -> None:
    """The same package's. Its blocks have 5 (version 4) or 3 states; RWKV-7's matrices are transposed there."""
    oracle = _oracle(name)
    _, state = _run(form, _load(name), oracle["ids"])
    theirs = [oracle[f"final_state//{i}"] for i in range(len(state))]
    for (ours, tensor), expected in zip(state.items(), theirs, strict=True):
        actual = tensor[0].mT if name.startswith("7") and ours.endswith("wkv_state") else tensor[0]
        assert oracles.difference(actual, expected) < TOLERANCE, ours


@OF_ALL
def test_greedy_bytes(name: str) -> None:
    oracle = _oracle(name)
    assert Greedy(_load(name)).tokens(oracle["ids"], 64) == oracle["greedy64"]


@pytest.mark.parametrize(("name", "eps"), [("4v0-660K", 64e-5), ("5v1-730K", 1e-5), ("7v0-834K", 64e-5)])
@IN_BOTH_FORMS
def test_logits_of_rwkv_cpp(name: str, eps: float, form: str) -> None:
    """After three bytes from the initial state (rwkv.cpp's own tests). It normalizes heads of RWKV-5 by another eps."""
    content = (oracles.folder() / "rwkv" / f"expected-logits-{name}.bin").read_bytes()
    logits, _ = _run(form, _load(name, group_norm_eps=eps), list(b'"in'))
    assert oracles.difference(logits[-1], torch.frombuffer(bytearray(content), dtype=torch.float32)) < TOLERANCE


@torch.no_grad()
@IN_BOTH_FORMS
def test_the_recurrence_of_rwkv6(form: str) -> None:
    """flash-linear-attention 0.6.0, its naive torch reference; time is its third dimension."""
    oracle = oracles.entry("recurrences", "rwkv6")
    given = oracle["inputs"]
    q, k, v, log_decay = (given[name].transpose(1, 2) for name in "qkvw")
    state = given["initial_state"]
    if form == "parallel":
        y, state = linear_attention.forward(q, k, v, log_decay, given["u"], state)
    else:
        outputs = []
        for t in range(q.shape[1]):
            y_t, state = linear_attention.step(q[:, t], k[:, t], v[:, t], log_decay[:, t], given["u"], state)
            outputs.append(y_t)
        y = torch.stack(outputs, dim=1)
    assert oracles.difference(y.transpose(1, 2), oracle["outputs"]["0"]) < TOLERANCE
    assert oracles.difference(state, oracle["outputs"]["1"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("version", ["5.0", "5.1", "5.2"])
@IN_BOTH_FORMS
def test_rwkv5_is_what_its_paper_says(version: Version, form: str) -> None:
    """A loop over tokens and heads, from the equations only (Peng et al., 2024, section 4.1)."""
    layer = randomized(RWKV5(12, RWKV5Config(num_heads=3, version=version)))
    weights, x_LD = dict(layer.named_parameters()), torch.randn(9, 12, dtype=torch.float64)
    decay = torch.exp(-weights["coefficients.time_decay"].exp())
    bonus = weights["coefficients.time_first"].exp() if version == "5.0" else weights["coefficients.time_faaaa"]
    before_D, S, outputs = torch.zeros(12).double(), torch.zeros(3, 4, 4).double(), []
    for x_D in x_LD:
        mixed = {p: m * x_D + (1 - m) * before_D for p in "rkvg" if (m := weights.get(f"time_mix_{p}")) is not None}
        r, k, v = (weights[f"{p}.weight"] @ mixed[p[0]] for p in ("receptance", "key", "value"))
        y_D = _heads(S, r, k, v, decay.repeat_interleave(12 // len(decay)), bonus.repeat_interleave(12 // len(bonus)))
        y_D = weights["ln_x.weight"] * y_D + weights["ln_x.bias"]
        if version != "5.0":
            gate_D = weights["gate.weight"] @ mixed["g"]
            y_D = y_D * gate_D * torch.sigmoid(gate_D)
        outputs.append(weights["output.weight"] @ y_D)
        before_D = x_D
    assert oracles.difference(_layer(form, layer, x_LD), torch.stack(outputs)) < 1e-12


@torch.no_grad()
@IN_BOTH_FORMS
def test_rwkv6_is_what_its_paper_says(form: str) -> None:
    """A loop over tokens and heads, from the equations only (Peng et al., 2024, section 4.2)."""
    layer = randomized(RWKV6(12, RWKV6Config(num_heads=3, mix_rank=5, decay_rank=2)))
    weights, x_LD = dict(layer.named_parameters()), torch.randn(9, 12, dtype=torch.float64)
    before_D, S, outputs = torch.zeros(12).double(), torch.zeros(3, 4, 4).double(), []
    for x_D in x_LD:
        gap_D, mixed = before_D - x_D, {}
        hidden = torch.tanh((x_D + gap_D * weights["time_maa_x"]) @ weights["time_maa_w1"])
        for i, p in enumerate("wkvrg"):
            low_rank = hidden[5 * i : 5 * i + 5] @ weights["time_maa_w2"][i]
            mixed[p] = x_D + gap_D * (weights[f"time_maa_{p}"] + low_rank)
        rate = weights["time_decay"] + torch.tanh(mixed["w"] @ weights["time_decay_w1"]) @ weights["time_decay_w2"]
        r, k, v = (weights[f"{p}.weight"] @ mixed[p[0]] for p in ("receptance", "key", "value"))
        y_D = _heads(S, r, k, v, torch.exp(-torch.exp(rate)), weights["time_faaaa"])
        gate_D = weights["gate.weight"] @ mixed["g"]
        y_D = (weights["ln_x.weight"] * y_D + weights["ln_x.bias"]) * gate_D * torch.sigmoid(gate_D)
        outputs.append(weights["output.weight"] @ y_D)
        before_D = x_D
    assert oracles.difference(_layer(form, layer, x_LD), torch.stack(outputs)) < 1e-12


RWKV6_ATT = {
    *(f"time_maa_{part}" for part in ("x", "w", "k", "v", "r", "g", "w1", "w2")),
    *("time_decay", "time_decay_w1", "time_decay_w2", "time_faaaa"),
    *(f"{name}.weight" for name in ("receptance", "key", "value", "gate", "output", "ln_x")),
    "ln_x.bias",
}
RWKV6_FFN = {"time_maa_k", "time_maa_r", "key.weight", "receptance.weight", "value.weight"}
RWKV6_BLOCK = {"ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias"}
RWKV6_NAMES = {
    *(f"blocks.{i}.{name}" for i in range(2) for name in RWKV6_BLOCK),
    *(f"blocks.{i}.att.{name}" for i in range(2) for name in RWKV6_ATT),
    *(f"blocks.{i}.ffn.{name}" for i in range(2) for name in RWKV6_FFN),
    *("emb.weight", "blocks.0.ln0.weight", "blocks.0.ln0.bias", "ln_out.weight", "ln_out.bias", "head.weight"),
}


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["rwkv4", "rwkv5", "rwkv6", "rwkv7"])
def test_a_checkpoint_makes_the_model_it_was_written_from(architecture: str, tmp_path: Path) -> None:
    model, weights = _written(architecture)
    if architecture == "rwkv6":
        assert weights.keys() == RWKV6_NAMES
    torch.save(weights, tmp_path / "model.pth")
    ids, loaded = list(range(7)), load_rwkv(tmp_path / "model.pth")
    assert not loaded.training and loaded.config.layers[0].mixer.kind == architecture
    assert torch.equal(_run("parallel", loaded, ids)[0], _run("parallel", model, ids)[0])


@pytest.mark.parametrize("architecture", ["rwkv4", "rwkv5", "rwkv6", "rwkv7"])
@pytest.mark.parametrize("name", ["emb.weight", "head.weight", "blocks.1.att.key.weight", "blocks.0.ffn.key.weight"])
def test_a_missing_tensor_is_named(architecture: str, name: str) -> None:
    _, weights = _written(architecture)
    with pytest.raises(ArtifactError, match=f"lacks the tensor {name}"):
        load_rwkv({other: tensor for other, tensor in weights.items() if other != name})


def test_what_is_no_such_checkpoint_is_refused(tmp_path: Path) -> None:
    _, weights = _written("rwkv5")
    with pytest.raises(ArtifactError, match=r"holds the tensor blocks\.0\.att\.extra, which RWKV models do not have"):
        load_rwkv({**weights, "blocks.0.att.extra": torch.zeros(3)})
    with pytest.raises(ArtifactError, match=r"blocks\.1\.ln1\.weight: \(5,\) is given, \(12,\) is wanted"):
        load_rwkv({**weights, "blocks.1.ln1.weight": torch.zeros(5)})
    with pytest.raises(ArtifactError, match="holds none of the tensors that tell versions 4 to 7"):
        load_rwkv({"emb.weight": torch.zeros(11, 12), "layers.0.mixer.A_log": torch.zeros(3)})
    with pytest.raises(ArtifactError, match="there is no file"):
        load_rwkv(tmp_path / "model.pth")
    (tmp_path / "model.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ArtifactError, match="cannot be read as a checkpoint"):
        load_rwkv(tmp_path / "model.pth")
    torch.save([1, 2], tmp_path / "model.pth")
    with pytest.raises(ArtifactError, match="does not hold tensors by their names"):
        load_rwkv(tmp_path / "model.pth")


def _oracle(name: str) -> dict[str, Any]:
    return oracles.everything(f"rwkv/{name}")


def _load(name: str, **options: float) -> LanguageModel:
    return load_rwkv(oracles.folder() / "rwkv" / f"tiny-rwkv-{name}.pth", **options)


def load_rwkv(source: Path | dict[str, Tensor], **options: float) -> LanguageModel:
    checkpoint = Pickle(source) if isinstance(source, Path) else Tensors(source)
    return assemble(checkpoint, rwkv(**options)).language_model


@torch.no_grad()
def _run(form: str, model: LanguageModel, ids: list[int]) -> tuple[Tensor, State]:
    """Logits (L, V) and the final state of one row."""
    logits, state = FORMS[form](model, torch.tensor([ids]), model.initial_state(1))
    return logits[0], state


def _layer(form: str, layer: RWKV5 | RWKV6, x_LD: Tensor) -> Tensor:
    return FORMS[form](layer, x_LD[None], layer.initial_state(1, like=x_LD))[0][0]


def _heads(S: Tensor, r: Tensor, k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """What each head reads of its matrix, normalized; the matrix then takes the token up."""
    outputs = []
    for h, part in enumerate(torch.arange(len(r)).view(len(S), -1)):
        written = torch.outer(k[part], v[part])
        y = r[part] @ (S[h] + bonus[part, None] * written)
        S[h] = decay[part, None] * S[h] + written
        outputs.append((y - y.mean()) / torch.sqrt(y.var(correction=0) + 64e-5))
    return torch.cat(outputs)


def _written(architecture: str) -> tuple[LanguageModel, dict[str, Tensor]]:
    """A random model, and its tensors as the published code names and shapes them."""
    torch.manual_seed(0)
    config = model_config(architecture, d_model=12, num_layers=2, dropout=0.0, vocab_size=11)
    model = randomized(LanguageModel(config)).float()
    weights = {NAMES.theirs(name): tensor.detach() for name, tensor in model.named_parameters()}
    for name, tensor in weights.items():
        last = name.rsplit(".", 1)[-1]
        if last in ("time_faaaa", "r_k") or (architecture, last) == ("rwkv5", "time_decay"):
            weights[name] = tensor.view(4, 3)
        elif tensor.ndim == 1 and ".att." in name and "ln_x" not in name:
            weights[name] = tensor.view(1, 1, -1)
    return model, weights
