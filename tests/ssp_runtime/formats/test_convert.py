"""`ssp-model convert` and `verify` on models of other programs."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssp_runtime import cli
from ssp_runtime.commands import convert as convert_command
from ssp_runtime.commands import verify as verify_command
from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.artifact import load
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.open import read_model
from ssp_runtime.mixers import bidirectional
from ssp_runtime.mixers.base import Coefficients, FixedCoefficients
from ssp_runtime.mixers.rwkv5 import RWKV5Config
from ssp_runtime.mixers.s6 import S6
from ssp_runtime.models.model import LanguageModel, WholeSequenceModel
from ssp_runtime.tokenizers import WorldTokenizer
from ssp_runtime.verification import peer
from ssp_runtime.verification.comparison import TOLERANCES, compare
from ssp_runtime.verification.text import tokens
from tests import oracles
from tests.ssp_runtime.formats.caduceus_folder import PH, PS, write_caduceus
from tests.ssp_runtime.formats.mamba_folder import write_mamba
from tests.ssp_runtime.vocabularies import byte_level, world

Run = Callable[..., str]
PIECE = 50


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`ssp-model` with arguments; what it printed."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["ssp-model", *map(str, arguments)])
        try:
            cli.main()
        finally:
            printed = capsys.readouterr()
            run.error = printed.err  # type: ignore[attr-defined]  # of the last call
        return printed.out

    return run


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "mamba"
    write_mamba(folder)
    return folder


def rwkv(version: str) -> Path:
    return oracles.folder() / "rwkv" / f"tiny-rwkv-{version}.pth"


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        ("mamba", "float32"),
        ("mamba", "bfloat16"),
        ("mamba", "float16"),
        ("4v0-660K", "bfloat16"),
        ("5v1-730K", "float16"),
        ("7v0-834K", "bfloat16"),
    ],
)
def test_any_source_becomes_an_artifact_that_computes_the_same(
    source: str, dtype: str, mamba: Path, tmp_path: Path, run: Run
) -> None:
    path = mamba if source == "mamba" else rwkv(source)
    run("convert", path, tmp_path / "made", "--dtype", dtype, "--verify", "--tokens", "40")
    made, trained = load(tmp_path / "made"), read_model(path, pickles=True)
    assert made.description.form == "recurrent" and made.description.tokenizer == trained.description.tokenizer
    assert _narrow(made.language_model) == {DTYPES[dtype]}
    ids = tokens(trained, None, 40)
    again = compare(trained.language_model, made.language_model, ids, PIECE)
    report = made.description.training["verification"]
    assert report["dtype"] == dtype and report["tokens"] >= 39
    assert again.logits.parts_at(TOLERANCES[DTYPES[dtype]]) is None
    assert report["largest_difference_of_logits"] <= TOLERANCES[DTYPES[dtype]] * max(1, report["largest_logit"])
    assert report["bits_recurrent"] == pytest.approx(report["bits_parallel"], rel=2e-2)


def _narrow(model: LanguageModel | WholeSequenceModel) -> set[torch.dtype]:
    """The dtypes of all parameters but the coefficients, which stay float32."""
    wide = {parameter for part in model.modules() if isinstance(part, Coefficients) for parameter in part.parameters()}
    assert all(parameter.dtype == torch.float32 for parameter in wide)
    return {parameter.dtype for parameter in model.parameters() if parameter not in wide}


def test_what_files_do_not_hold_can_be_told(tmp_path: Path, run: Run) -> None:
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_bytes(world(*(bytes((byte,)) for byte in range(1, 256))))
    arguments = ("--group-norm-eps", "1e-5", "--tokenizer", vocabulary)
    run("convert", rwkv("5v1-730K"), tmp_path / "made", *arguments)
    made = load(tmp_path / "made").description
    assert made.tokenizer == WorldTokenizer(vocabulary.read_bytes())
    mixer = made.model.layers[0].mixer
    assert isinstance(mixer, RWKV5Config) and mixer.group_norm_eps == 1e-5


def test_the_told_eps_gives_the_other_programs_logits(tmp_path: Path, run: Run) -> None:
    run("convert", rwkv("5v1-730K"), tmp_path / "made", "--group-norm-eps", "1e-5")
    data = (oracles.folder() / "rwkv" / "expected-logits-5v1-730K.bin").read_bytes()
    expected = torch.frombuffer(bytearray(data), dtype=torch.float32)
    model = load(tmp_path / "made").language_model
    with torch.no_grad():
        logits, _ = model(torch.tensor([list(b'"in')]), model.initial_state(1))
    assert oracles.difference(logits[0, -1], expected) < 1e-5


def test_a_text_of_ones_own_is_compared_on(mamba: Path, tmp_path: Path, run: Run) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox " * 40)
    run("convert", mamba, tmp_path / "made", "--verify", "--text", text, "--tokens", "30")
    assert load(tmp_path / "made").description.training["verification"]["tokens"] == 29


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{mamba}", "--group-norm-eps", "1e-5"), "--group-norm-eps is a setting of RWKV"),
        (("{ours}", "--group-norm-eps", "1e-5"), "leave --group-norm-eps out"),
        (("{ours}",), "is in recurrent form already"),
        (("{mamba}", "--tokenizer", "words"), "the tokenizer's kind is 'words'; there are bytes, dna"),
        (("{mamba}", "--tokenizer", "{nonsense}"), "is damaged, or is no RWKV vocabulary"),
        (("{mamba}", "--tokens", "1", "--verify"), "--tokens is at least 2, not 1"),
        (("{nowhere}",), "nowhere is no model folder: there is nothing there"),
    ],
)
def test_what_cannot_be_converted_is_one_clear_line(
    arguments: tuple[str, ...], message: str, mamba: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "nonsense").write_text("no vocabulary")
    paths = {name: tmp_path / name for name in ("ours", "nonsense", "nowhere")} | {"mamba": mamba}
    run("convert", mamba, paths["ours"])
    with pytest.raises(SystemExit):
        run("convert", *(argument.format(**paths) for argument in arguments), tmp_path / "made")
    assert message in run.error and run.error.startswith("error: ")  # type: ignore[attr-defined]  # of the last call
    assert not (tmp_path / "made").exists()


def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the second S6 layer's step, and only that, is a little off."""
    compute = S6.compute
    calls = {"count": 0}

    def wrong(self: S6, x: torch.Tensor, run: object) -> torch.Tensor:
        y = compute(self, x, run)  # type: ignore[arg-type]  # a Run
        calls["count"] += x.ndim == 2
        return y * 1.5 if x.ndim == 2 and calls["count"] % 3 == 2 and calls["count"] > 30 else y

    monkeypatch.setattr(S6, "compute", wrong)


def test_a_wrong_conversion_is_not_written(
    mamba: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch)
    with pytest.raises(SystemExit):
        run("convert", mamba, tmp_path / "made", "--verify", "--tokens", "100")
    assert "parts from the trained one at token 10" in run.error  # type: ignore[attr-defined]  # of the last call
    assert not (tmp_path / "made").exists()


def test_verify_shows_every_layer_and_transformers_too(mamba: Path, run: Run) -> None:
    printed = run("verify", mamba, "--tokens", "60", "--piece", "25", "--peer-tokens", "20")
    for place in ("layer 0 (mamba)", "layer 1 (mamba)", "layer 2 (mamba)", "logits"):
        (line,) = [line for line in printed.splitlines() if line.startswith(place)]
        gaps = [float(cell) for cell in line.removeprefix(place).split()[1:]]
        assert len(gaps) == 2 and max(gaps) < 1e-4
    assert "transformers: on 20 tokens" in printed


def test_verify_names_the_first_place_where_forms_part(mamba: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        run("verify", mamba, "--tokens", "60", "--peer-tokens", "0")
    place = "layer 1 (mamba), first at token 10"
    assert stopped.value.code == f"the recurrent form parts from the parallel one after {place}"


def test_verify_names_the_first_place_where_transformers_parts(
    mamba: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_module: object, _inputs: object, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([y[:, :7], y[:, 7:] * 1.5], dim=1)

    load = peer._load
    monkeypatch.setattr(peer, "_load", lambda path: _hooked(load(path), wrong))
    with pytest.raises(SystemExit) as stopped:
        run("verify", mamba, "--tokens", "30")
    assert stopped.value.code == "transformers parts from the parallel one after layer 1 (mamba), first at token 7"


def _hooked(model: Any, hook: Callable[..., torch.Tensor]) -> Any:
    model.backbone.layers[1].register_forward_hook(hook)
    return model


def test_verify_takes_a_pickle(run: Run) -> None:
    printed = run("verify", rwkv("4v0-660K"), "--tokens", "40")
    assert "transformers: not compared: it does not read this kind of file" in printed


def test_inspect_shows_any_model(mamba: Path, run: Run) -> None:
    assert "3 x mamba(s6)" in run("inspect", mamba) and "huggingface" in run("inspect", mamba)
    assert "rwkv7" in run("inspect", rwkv("7v0-834K"))


def test_vocabularies_are_stored_beside_the_weights(mamba: Path, tmp_path: Path, run: Run) -> None:
    run("convert", mamba, tmp_path / "made")
    assert (tmp_path / "made" / "tokenizer.json").read_bytes() == byte_level()
    (tmp_path / "made" / "tokenizer.json").write_bytes(byte_level() + b"\n")
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        load(tmp_path / "made")


@pytest.fixture(params=["masked", "classifier"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model that reads whole sequences: of both strands, and of one."""
    score = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    if request.param == "masked":
        return write_caduceus(tmp_path / "caduceus", PS)
    return write_caduceus(tmp_path / "caduceus", PH, score=score, both_strands=False)


def of_whole(path: Path) -> WholeSequenceModel:
    model = read_model(path, pickles=True).model
    assert isinstance(model, WholeSequenceModel)
    return model


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_of_whole_sequences_becomes_an_artifact_that_computes_the_same(
    whole: Path, dtype: str, tmp_path: Path, run: Run
) -> None:
    printed = run("convert", whole, tmp_path / "made", "--dtype", dtype, "--verify", "--tokens", "40")
    assert "verified on 40 tokens" in printed and "none: needs the whole sequence" in printed
    made, ids = load(tmp_path / "made"), torch.tensor([tokens(read_model(whole, pickles=True), None, 40)])
    assert made.description.form == "recurrent" and _narrow(of_whole(tmp_path / "made")) == {DTYPES[dtype]}
    with torch.inference_mode():
        expected, found = of_whole(whole)(ids), of_whole(tmp_path / "made")(ids).float()
    tolerance = TOLERANCES[DTYPES[dtype]] * max(1.0, float(expected.abs().max()))
    assert oracles.difference(found, expected) < tolerance
    report = made.description.training["verification"]
    assert (report["dtype"], report["tokens"]) == (dtype, 40) and report["largest_difference_of_logits"] < tolerance
    with pytest.raises(SystemExit):
        run("convert", tmp_path / "made", tmp_path / "again")
    assert "is in recurrent form already" in run.error  # type: ignore[attr-defined]  # of the last call


def test_verify_shows_every_layer_of_a_model_of_whole_sequences(whole: Path, tmp_path: Path, run: Run) -> None:
    run("convert", whole, tmp_path / "made")
    for path in (whole, tmp_path / "made"):
        printed = run("verify", path, "--tokens", "60")
        assert "60 tokens" in printed and "alone - converted, in a batch" in printed
        for place in ("layer 0 (bidirectional_mamba)", "layer 1 (bidirectional_mamba)", "logits"):
            (line,) = [line for line in printed.splitlines() if line.startswith(place)]
            largest, gap = (float(cell) for cell in line.removeprefix(place).split())
            assert gap < 1e-4 < largest


def badly_converted(model: torch.nn.Module) -> None:
    """The second layer's decays are a tenth off."""
    to_recurrent(model)
    fixed = [part for part in model.modules() if isinstance(part, FixedCoefficients)]
    next(fixed[2].parameters()).data *= 1.1


def test_a_wrong_conversion_of_whole_sequences_is_found(
    whole: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_command, "to_recurrent", badly_converted)
    with pytest.raises(SystemExit):
        run("convert", whole, tmp_path / "made", "--verify", "--tokens", "40")
    assert "the recurrent form parts from the trained one" in run.error  # type: ignore[attr-defined]  # of the last call
    assert not (tmp_path / "made").exists()
    monkeypatch.setattr(verify_command, "to_recurrent", badly_converted)
    with pytest.raises(SystemExit) as stopped:
        run("verify", whole, "--tokens", "60")
    place = "layer 1 (bidirectional_mamba), first at token"
    assert f"the converted form, in a padded batch, parts from the parallel one after {place}" in str(stopped.value)


def test_verify_finds_padding_that_is_read(whole: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bidirectional, "reversed_in_length", lambda x_BLD, _: x_BLD.flip(1))
    with pytest.raises(SystemExit) as stopped:
        run("verify", whole, "--tokens", "60")
    place = "layer 0 (bidirectional_mamba), first at token"
    assert f"the converted form, in a padded batch, parts from the parallel one after {place}" in str(stopped.value)
