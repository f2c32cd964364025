"""Exported graphs in onnxruntime against torch: of one model for every operator, and of classifiers."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssp_kernels.operators import OPERATORS
from ssp_runtime import cli
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.formats import artifact
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.onnx.export import export
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.bidirectional import (
    BidirectionalConfig,
    BidirectionalMambaConfig,
    TwoSidedConfig,
    WholeSimpleConfig,
)
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    HeadConfig,
    LanguageModelHeadConfig,
    MaskedLanguageModelHeadConfig,
    ModelConfig,
    TokenEmbeddingConfig,
    ValuesHeadConfig,
)
from ssp_runtime.models.model import LanguageModel, build_model
from ssp_runtime.state import State
from ssp_runtime.tokenizers import ByteTokenizer
from tests.ssp_runtime.subjects import MIXERS, OF_NUMBERS, operators_of, randomized

EXAMPLE = Path(__file__).parents[3] / "examples" / "onnx_session.py"
SHIPPED = Path(cli.__file__).parent / "shipped" / "python-bytes"
TOLERANCE = 1e-4
OF_OPERATOR = {
    "causal_conv1d": "mamba(s6)",
    "delta_rule": "deltanet",
    "dplr_ssm": "s4",
    "linear_attention": "rwkv6",
    "linear_scan": "griffin",
    "lti_ssm": "s4d",
    "nonlinear_loop": "slstm",
    "selective_scan": "rotary_s6",
    "stabilizer": "mlstm",
    "window_attention": "window_attention(chunked)",
    "wkv": "rwkv4",
}
BOTH_WAYS = (BidirectionalConfig(ssp=MIXERS["s4d"]), TwoSidedConfig(ssp=MIXERS["s4d"]))
Arrays = dict[str, NDArray[np.generic]]


class Exported:
    """A folder of graphs, and the model they were made of."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder, self.artifact = folder, artifact.load(source)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, graph: str, inputs: Arrays) -> list[Tensor]:
        return [torch.from_numpy(array) for array in self._session(graph).run(None, inputs)]

    def metadata(self, graph: str) -> dict[str, str]:
        return dict(self._session(graph).get_modelmeta().custom_metadata_map)

    def advance(self, graph: str, inputs: Arrays, state: State) -> tuple[Tensor, State]:
        y, *new = self.run(graph, inputs | {name: tensor.numpy() for name, tensor in state.items()})
        return y, dict(zip(state, new, strict=True))

    def _session(self, graph: str) -> onnxruntime.InferenceSession:
        if graph not in self._sessions:
            path = self.folder / f"{graph}.onnx"
            self._sessions[graph] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return self._sessions[graph]


def run(*arguments: str | Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ssp-model", *map(str, arguments)])
        cli.main()


def config_of(mixer: MixerConfig, head: HeadConfig | None = None) -> ModelConfig:
    return ModelConfig(
        d_model=6,
        embedding=TokenEmbeddingConfig(vocab_size=256),
        layers=(BlockConfig(mixer=mixer),),
        head=head or LanguageModelHeadConfig(),
    )


def exported(config: ModelConfig, folder: Path, *options: str) -> Exported:
    torch.manual_seed(0)
    model = randomized(build_model(config)).float()
    to_recurrent(model)
    tokens = isinstance(config.embedding, TokenEmbeddingConfig)
    description = Description(
        model=config, form="recurrent", tokenizer=ByteTokenizer() if tokens else None, labels=("a", "b", "c")
    )
    artifact.save(folder / "model", model, description)
    run("export-onnx", folder / "model", folder / "graphs", *options)
    return Exported(folder / "model", folder / "graphs")


def random_tokens(*shape: int) -> Tensor:
    return torch.randint(256, shape)


@torch.no_grad()
def check_a_thousand_steps(subject: Exported) -> None:
    model, batch = subject.artifact.language_model, 3
    expected = state = model.initial_state(batch)
    for _ in range(1000):
        tokens = random_tokens(batch)
        logits, state = subject.advance("step", {"tokens": tokens.numpy()}, state)
        logits_of_torch, expected = model.step(tokens, expected)
        torch.testing.assert_close(logits, logits_of_torch, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(state, expected, atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def check_ragged_prefill(subject: Exported) -> None:
    model, lengths = subject.artifact.language_model, [17, 0, 1, 9]
    tokens, lengths_B = random_tokens(4, 17), torch.tensor(lengths)
    _, warm = model(random_tokens(4, 6), model.initial_state(4))
    inputs: Arrays = {"tokens": tokens.numpy(), "lengths": lengths_B.numpy()}
    logits, state = subject.advance("prefill", inputs, {name: warm[name] for name in model.state_spec})
    expected_logits, expected = model(tokens, warm, lengths_B=lengths_B)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(logits[row, :length], expected_logits[row, :length], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(state, {name: expected[name] for name in state}, atol=TOLERANCE, rtol=TOLERANCE)


def check_prefill_is_its_steps(subject: Exported) -> None:
    tokens = random_tokens(2, 12)
    before = subject.artifact.language_model.initial_state(2)
    at_once, after = subject.advance("prefill", {"tokens": tokens.numpy(), "lengths": np.array([12, 12])}, before)
    for t in range(12):
        logits, before = subject.advance("step", {"tokens": tokens[:, t].numpy()}, before)
        torch.testing.assert_close(at_once[:, t], logits, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(after, before, atol=TOLERANCE, rtol=TOLERANCE)


CHECKS = (check_a_thousand_steps, check_ragged_prefill, check_prefill_is_its_steps)


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of two operators: `causal_conv1d` and `selective_scan`."""
    return exported(config_of(MIXERS["mamba(s6)"]), tmp_path_factory.mktemp("mamba"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_graphs_of_a_mamba_are_the_model(mamba: Exported, check: Callable[[Exported], None]) -> None:
    check(mamba)


@pytest.mark.slow
@pytest.mark.parametrize("operator", OF_OPERATOR)
def test_the_graphs_of_every_operator_are_the_model(operator: str, tmp_path: Path) -> None:
    subject = exported(config_of(MIXERS[OF_OPERATOR[operator]]), tmp_path)
    for check in CHECKS:
        check(subject)


def test_there_is_a_model_for_every_operator() -> None:
    assert OF_OPERATOR.keys() == {operator.name for operator in OPERATORS}
    for name, mixer in OF_OPERATOR.items():
        assert name in {operator.name for operator in operators_of(mixer)}


def test_inputs_and_outputs_are_named_after_the_state(mamba: Exported) -> None:
    graph = onnx.load(mamba.folder / "step.onnx", load_external_data=False).graph
    names = list(mamba.artifact.language_model.state_spec)
    assert [value.name for value in graph.input] == ["tokens", *names]
    assert [value.name for value in graph.output] == ["logits", *(f"new.{name}" for name in names)]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)} == {"batch"}


def test_metadata_tell_the_model_and_its_state(mamba: Exported) -> None:
    metadata = mamba.metadata("prefill")
    assert metadata["ssp.fingerprint"] == mamba.artifact.fingerprint
    assert (metadata["ssp.model"], metadata["ssp.graph"]) == ("model", "prefill")
    assert json.loads(metadata["ssp.tokenizer"]) == {"kind": "bytes"}
    state = {
        name: (tuple(tensor["shape"]), tensor["kind"]) for name, tensor in json.loads(metadata["ssp.state"]).items()
    }
    spec = mamba.artifact.language_model.state_spec
    assert state == {name: (tensor.shape, tensor.kind) for name, tensor in spec.items()}


def test_the_graphs_share_their_weights(mamba: Exported) -> None:
    step, prefill = (places_of_weights(mamba.folder / f"{graph}.onnx") for graph in ("step", "prefill"))
    shared = step.keys() & prefill.keys()
    assert "model.lm_head.weight" in shared
    assert {step[name] for name in shared} == {prefill[name] for name in shared}


def places_of_weights(path: Path) -> dict[str, tuple[str, ...]]:
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    external = {tensor.name: tensor.external_data for tensor in tensors if tensor.name.startswith("model.")}
    return {name: tuple(entry.value for entry in entries) for name, entries in external.items() if entries}


@torch.no_grad()
def greedy(model: LanguageModel, prompt: str, count: int) -> bytes:
    """Up to the zero that ends a text."""
    logits, state = model(torch.tensor([[0, *prompt.encode()]]), model.initial_state(1))
    row, made = logits[:, -1], b""
    while len(made) < count and (token := int(row.argmax())):
        made += bytes([token])
        row, state = model.step(torch.tensor([token]), state)
    return made


def by_example(folder: Path, prompt: str, count: int) -> bytes:
    """What it prints where torch cannot be imported."""
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    program = f"import sys; sys.argv = sys.argv[1:]; {code}"
    command = [sys.executable, "-c", program, str(EXAMPLE), str(folder), prompt, str(count)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout


def test_the_example_streams_what_torch_generates(mamba: Exported) -> None:
    made = by_example(mamba.folder, "import", 30)
    assert made
    assert made == greedy(mamba.artifact.language_model, "import", 30)


@pytest.mark.slow
def test_the_example_streams_a_completion_of_the_shipped_model(tmp_path: Path) -> None:
    run("export-onnx", SHIPPED, tmp_path)
    assert by_example(tmp_path, "import json", 100) == greedy(artifact.load(SHIPPED).language_model, "import json", 100)


@pytest.mark.parametrize(
    "mixer",
    [
        BidirectionalMambaConfig(ssp=MIXERS["s6"]),
        *(pytest.param(WholeSimpleConfig(ssp=ssp), marks=pytest.mark.slow) for ssp in BOTH_WAYS),
        pytest.param(MIXERS["griffin"], marks=pytest.mark.slow),
    ],
    ids=("bidirectional_mamba", "bidirectional", "two_sided", "griffin"),
)
@torch.no_grad()
def test_a_classifier_takes_any_batch_of_any_lengths(mixer: MixerConfig, tmp_path: Path) -> None:
    subject = exported(config_of(mixer, ClassificationHeadConfig(num_classes=3)), tmp_path)
    for batch, length in ((3, 23), (1, 4), (2, 9)):
        tokens, lengths_B = random_tokens(batch, length), torch.tensor([length, 1, 3][:batch])
        (logits,) = subject.run("classifier", {"tokens": tokens.numpy(), "lengths": lengths_B.numpy()})
        expected = subject.artifact.classifier(tokens, lengths_B)
        torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
    assert json.loads(subject.metadata("classifier")["ssp.labels"]) == ["a", "b", "c"]


@pytest.mark.slow
@torch.no_grad()
def test_a_masked_language_model_scores_ragged_rows(tmp_path: Path) -> None:
    mixer = BidirectionalMambaConfig(ssp=MIXERS["s6"])
    subject = exported(config_of(mixer, MaskedLanguageModelHeadConfig()), tmp_path)
    tokens, lengths = random_tokens(2, 9), [9, 4]
    (logits,) = subject.run("masked_language_model", {"tokens": tokens.numpy(), "lengths": np.array(lengths)})
    expected = subject.artifact.masked_language_model(tokens, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        torch.testing.assert_close(logits[row, :length], expected[row, :length], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_a_regressor_in_pieces_of_one_length(tmp_path: Path) -> None:
    config = replace(OF_NUMBERS, head=ValuesHeadConfig(d_output=2))
    subject = exported(config, tmp_path, "--piece", "8", "--opset", "18")
    model = subject.artifact.sequence_regressor
    x, lengths_B = torch.randn(2, 8, 3), torch.tensor([8, 5])
    state = model.initial_state(2)
    values, new = subject.advance("prefill", {"inputs": x.numpy(), "lengths": lengths_B.numpy()}, state)
    expected_values, expected = model(x, state, lengths_B=lengths_B)
    torch.testing.assert_close(values[1, :5], expected_values[1, :5], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(new, {name: expected[name] for name in new}, atol=TOLERANCE, rtol=TOLERANCE)
    graph = onnx.load(subject.folder / "prefill.onnx", load_external_data=False)
    assert graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 8
    assert graph.opset_import[0].version == 18


class Unexpressible(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(torch.linalg.eigvalsh(x[:, :, None] * x[:, None]))


def test_what_has_no_form_in_onnx_is_refused_by_name(tmp_path: Path) -> None:
    model = build_model(config_of(MIXERS["mingru"]))
    model.backbone.norm_f = Unexpressible()
    description = Description(model=model.config, form="recurrent")
    with pytest.raises(InvalidRequest, match=r"the step of 1 x mingru has no form in ONNX: .*linalg_eigh"):
        export(Artifact(description=description, model=model, fingerprint=""), "odd", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("python-bytes", "--opset", "9"), "the opset is 18 to 23, not 9"),
        (("python-bytes", "--piece", "0"), "a piece has at least 1 token, not 0"),
        (("arabidopsis-promoters", "--piece", "4"), "this model reads whole sequences"),
    ],
)
def test_refusals_say_what_to_do(
    arguments: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = arguments
    with pytest.raises(SystemExit):
        run("export-onnx", SHIPPED.with_name(name), tmp_path, *options)
    assert reason in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ssp_runtime.formats.onnx.export", None)
    with pytest.raises(SystemExit):
        run("export-onnx", SHIPPED, tmp_path)
    assert "pip install 'ssp[onnx]'" in capsys.readouterr().err
