"""Checkpoints of other programs are served: folders as they are, pickles once converted."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import MambaForCausalLM

from ssp_client import Client, FailedPrecondition, InvalidArgument, SamplingParams
from ssp_runtime.commands.convert import Dtype, convert
from tests import oracles
from tests.server.server_process import COMMAND, PATIENCE, START_PATIENCE, ServerProcess
from tests.ssp_runtime.formats.mamba_folder import write_mamba
from tests.ssp_runtime.vocabularies import sentencepiece

PROMPT = "the quick naïve"
RWKV = "5v1-730K"
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def mamba(folder: Path) -> MambaForCausalLM:
    model = write_mamba(folder / "mamba")
    write_mamba(folder / "without-words")
    (folder / "without-words" / "tokenizer.json").unlink()
    write_mamba(folder / "spaced")
    (folder / "spaced" / "tokenizer.json").write_bytes(sentencepiece())
    return model


@pytest.fixture(scope="module")
def client(folder: Path, mamba: MambaForCausalLM) -> Iterator[Client]:  # noqa: ARG001  # written
    for dtype in DTYPES:
        convert(str(oracles.folder() / "rwkv" / f"tiny-rwkv-{RWKV}.pth"), folder / f"rwkv-{dtype}", dtype=dtype)
    models = [
        folder / name for name in ("mamba", "without-words", "spaced", "rwkv-float32", "rwkv-bfloat16", "rwkv-float16")
    ]
    with (
        ServerProcess("--model-root", folder, "--slots", "2", "--models", *models) as server,
        Client(server.target, timeout=PATIENCE) as made,
    ):
        made.wait_until_ready(PATIENCE, service="ssp.v1.Generation")
        yield made


@pytest.fixture(scope="module")
def vocabulary(folder: Path, mamba: MambaForCausalLM) -> Tokenizer:  # noqa: ARG001  # written
    made = Tokenizer.from_file(str(folder / "mamba" / "tokenizer.json"))
    made.no_truncation()
    return made


@torch.no_grad()
def greedy(model: MambaForCausalLM, prompt: list[int], count: int) -> list[int]:
    """By the other program, the whole text at every token."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_a_folder_says_what_the_other_program_does(
    client: Client, mamba: MambaForCausalLM, vocabulary: Tokenizer
) -> None:
    expected = greedy(mamba, vocabulary.encode(PROMPT).ids, 50)
    chunks = list(client.generate(PROMPT, model="mamba", max_tokens=50, temperature=0, ignore_eos=True))
    assert len(set(expected)) > 5
    assert [token for chunk in chunks for token in chunk.token_ids] == expected
    assert "".join(chunk.text for chunk in chunks) == vocabulary.decode(expected)


def test_its_sessions_go_on_in_pieces_and_forks(client: Client, mamba: MambaForCausalLM, vocabulary: Tokenizer) -> None:
    expected = greedy(mamba, vocabulary.encode(PROMPT).ids, 40)
    with client.open_session("mamba") as session:
        session.append(PROMPT)
        said = [session.complete(max_tokens=10, temperature=0, ignore_eos=True) for _ in range(2)]
        with session.fork() as other:
            said.append(other.complete(max_tokens=20, temperature=0, ignore_eos=True))
    assert [token for part in said for token in part.token_ids] == expected
    assert vocabulary.decode(expected).startswith("".join(part.text for part in said).rstrip("\ufffd"))


@pytest.mark.parametrize("end", [0, 5])
def test_any_end_of_text_ends_one(end: int, client: Client) -> None:
    answer = client.complete(PROMPT, model="mamba", max_tokens=30, temperature=0, logit_bias={end: 100})
    assert list(answer.token_ids) == [end] and answer.text == ""


def test_only_what_begins_a_text_loses_its_space(client: Client, tmp_path: Path) -> None:
    the = Tokenizer.from_str(sentencepiece().decode()).token_to_id("▁the")
    assert the is not None
    params = SamplingParams(temperature=0, logit_bias={the: 100}, max_tokens=2)
    assert client.complete("", model="spaced", sampling_params=params).text == "the the"
    assert client.complete("a", model="spaced", sampling_params=params).text == " the the"
    with client.open_session("spaced") as session:
        session.append("a")
        session.export(tmp_path / "state")
        with client.import_session(tmp_path / "state", "spaced") as moved, session.fork() as fork:
            assert [each.complete(sampling_params=params).text for each in (moved, fork)] == [" the the"] * 2


def test_a_model_without_words_takes_ids(client: Client, mamba: MambaForCausalLM) -> None:
    answer = client.complete([9, 8, 7], model="without-words", max_tokens=12, temperature=0, ignore_eos=True)
    assert list(answer.token_ids) == greedy(mamba, [9, 8, 7], 12) and answer.text == ""
    with pytest.raises(InvalidArgument, match="this model came without its vocabulary and takes token ids only"):
        client.complete("text", model="without-words")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_converted_pickle_says_what_the_other_program_does_in_any_dtype(dtype: str, client: Client) -> None:
    oracle = oracles.everything(f"rwkv/{RWKV}")
    said: list[int] = []
    with client.open_session(f"rwkv-{dtype}") as session:
        session.append(oracle["ids"])
        for _ in range(4):
            said += session.complete(max_tokens=16, temperature=0, ignore_eos=True).token_ids
    assert said == oracle["greedy64"]


def test_an_administrator_loads_a_folder_and_no_pickle(client: Client, folder: Path) -> None:
    made = client.load_model("again", "mamba")
    assert made.fingerprint == client.model("mamba").fingerprint
    client.unload_model("again")
    torch.save({"emb.weight": torch.ones(2, 2)}, folder / "weights.pth")
    with pytest.raises(FailedPrecondition, match=r"weights\.pth is a pickle, which is not served: convert it once"):
        client.load_model("pickle", "weights.pth")


def test_a_server_told_to_serve_a_pickle_says_how_to_convert_it() -> None:
    path = oracles.folder() / "rwkv" / f"tiny-rwkv-{RWKV}.pth"
    command = [*COMMAND, "--models", str(path)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_PATIENCE)
    assert ended.returncode != 0
    assert f"{path} is a pickle, which is not served: convert it once with ssp-model convert" in ended.stderr
    assert "Traceback" not in ended.stderr
