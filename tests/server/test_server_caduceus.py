"""Caduceus' masked language models and classifiers, served as their authors' folders and as our artifacts."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models
from torch.nn import functional as F

from ssp.v1 import classification_pb2, common_pb2
from ssp_client import AsyncClient, Client, Filling, InvalidArgument, Task
from ssp_client.status import to_exception
from ssp_runtime.commands.convert import convert
from ssp_runtime.formats.foreign import load_foreign
from ssp_runtime.tokenizers import HyenaDNATokenizer
from tests import oracles
from tests.server.server_process import PATIENCE, ServerProcess
from tests.server.tiny_artifacts import write_reader, write_writer
from tests.ssp_runtime.formats.caduceus_folder import COMPLEMENT, PH, PS, other_strand, write_caduceus
from tests.ssp_runtime.formats.foreign_harness import TOLERANCE

KINDS = {"ph": PH, "ps": PS}
LETTERS = {"A": 7, "C": 8, "G": 9, "T": 10}
MASK = 3
CLASSIFY = "/ssp.v1.Classification/Classify"
SCORE = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
RANDOM = np.random.default_rng(0)
SEQUENCES = ["".join(RANDOM.choice(list("ACGT"), length)) for length in (1, 300, 2, 17, 64, 65, 3, 1, 40)]
TEXT = "ACGTTACGNNGATC"

of_both = pytest.mark.parametrize("kind", KINDS)
as_folder_and_artifact = pytest.mark.parametrize("form", ["", "-converted"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ph` and `ps`; the same with a letter for their mask (`ph-A`); classifiers; ids without a vocabulary."""
    made = tmp_path_factory.mktemp("caduceus")
    for kind, entry in KINDS.items():
        write_caduceus(made / kind, entry)
        write_caduceus(made / f"{kind}-classifier", entry, score=SCORE, both_strands=kind == "ps")
        for name in (kind, f"{kind}-classifier"):
            convert(str(made / name), made / f"{name}-converted", verify=True, tokens=64)
        for letter, token in LETTERS.items():
            folder = write_caduceus(made / f"{kind}-{letter}", entry)
            (folder / "tokenizer.json").write_bytes(vocabulary(mask=token))
    (write_caduceus(made / "no-mask", PH) / "tokenizer.json").write_bytes(vocabulary(mask=None))
    write_writer(made / "writer")
    write_reader(made / "reader")
    return made


def vocabulary(*, mask: int | None) -> bytes:
    """Sixteen words, of which one may be the mask."""
    words = ["[MASK]" if token == mask else f"word{token}" for token in range(16)]
    made = Tokenizer(models.WordLevel(dict(zip(words, range(16), strict=True)), unk_token="word0"))
    if mask is not None:
        made.add_special_tokens([AddedToken("[MASK]")])
    return made.to_str().encode()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    served = [path for path in sorted(folder.iterdir()) if not path.name.endswith("-trained")]
    with ServerProcess("--models", *served) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.target, timeout=PATIENCE) as made:
        made.wait_until_ready(PATIENCE, service="ssp.v1.Filling")
        yield made


def logprobs(filling: Filling) -> dict[int, np.ndarray]:
    """Of every token, by place."""
    found = {}
    for place in filling.places:
        by_id = {candidate.token_id: candidate.logprob for candidate in place.candidates}
        found[place.position] = np.array([by_id[token] for token in sorted(by_id)])
        assert list(place.candidates) == sorted(place.candidates, key=lambda each: -each.logprob)
    return found


@torch.inference_mode()
def by_itself(folder: Path, kind: str, ids: list[int]) -> np.ndarray:
    """Log-probabilities (L, V) that the model gives in this process."""
    model = load_foreign(folder / kind).masked_language_model
    return F.log_softmax(model(torch.tensor([ids]))[0], -1).numpy()


def encoded(text: str) -> list[int]:
    return HyenaDNATokenizer().encode(text)


@of_both
@pytest.mark.parametrize("letter", LETTERS)
def test_fill_agrees_with_the_authors_code(client: Client, kind: str, letter: str) -> None:
    """Their numbers are of whole sequences: where the mask has a letter's id, such a letter is a mask already."""
    oracle = oracles.entry("caduceus", KINDS[kind])
    expected = F.log_softmax(oracle["logits"], -1).numpy()
    ids = oracle["input_ids"].tolist()
    for number, filling in enumerate(client.fill(ids, model=f"{kind}-{letter}", top=16)):
        found = logprobs(filling)
        assert sorted(found) == [place for place, token in enumerate(ids[number]) if token == LETTERS[letter]] != []
        assert all(place.given is None for place in filling.places)
        assert max(np.abs(found[place] - expected[number, place]).max() for place in found) < TOLERANCE


@of_both
@as_folder_and_artifact
def test_fill_agrees_with_the_model_run_by_itself(client: Client, folder: Path, kind: str, form: str) -> None:
    """Masks in the text, and masks that the server puts."""
    masked = encoded("ACGT[MASK]ACGNN[MASK]ATC")
    expected = by_itself(folder, kind, masked)
    in_text, by_server, ids = client.fill(
        ["acgt[MASK]ACGNN[MASK]ATC", TEXT, masked], [(), (10, 4), ()], model=kind + form, top=16
    )
    assert encoded(TEXT)[4] == LETTERS["T"] and [place.position for place in in_text.places] == [4, 10]
    for filling in (in_text, by_server, ids):
        found = logprobs(filling)
        assert max(np.abs(found[place] - expected[place]).max() for place in (4, 10)) < 1e-5
    assert [place.given and place.given.text for place in by_server.places] == ["T", "G"]
    assert by_server.places[0].given is not None
    assert abs(by_server.places[0].given.logprob - expected[4, LETTERS["T"]]) < 1e-5
    texts = {each.token_id: each.text for each in in_text.places[0].candidates}
    assert [texts[token] for token in (MASK, *LETTERS.values(), 15)] == ["", "A", "C", "G", "T", ""]


@of_both
def test_pseudo_log_likelihoods(client: Client, folder: Path, kind: str) -> None:
    """Each place masked by itself, the others as they are."""
    ids = encoded(TEXT)
    (filling,) = client.fill([TEXT], [range(len(TEXT))], model=kind, top=0, separately=True)
    expected = [
        by_itself(folder, kind, [*ids[:place], MASK, *ids[place + 1 :]])[place, token]
        for place, token in enumerate(ids)
    ]
    assert [place.position for place in filling.places] == list(range(len(TEXT)))
    given = [place.given.logprob for place in filling.places if place.given]
    assert np.abs(np.array(given) - expected).max() < 1e-5 and not filling.places[0].candidates
    assert filling.total == pytest.approx(math.fsum(expected), abs=1e-4)
    (mixed,) = client.fill(["AC[MASK]T"], [(3, 0)], model=kind, top=0, separately=True)
    assert [(place.position, place.given and place.given.text) for place in mixed.places] == [
        (0, "A"),
        (2, None),
        (3, "T"),
    ]
    (together,) = client.fill([TEXT], [range(len(TEXT))], model=kind, top=0)
    assert abs(together.total - filling.total) > 1e-3, "masking all at once is another question"


@of_both
def test_a_sequence_alone_equals_itself_among_others(client: Client, kind: str) -> None:
    """In one call and in calls at once; of several lengths, so that most are padded."""
    positions = [{0, len(sequence) // 2, len(sequence) - 1} for sequence in SEQUENCES]
    asked = [sorted(places) for places in positions]
    together = client.fill(SEQUENCES, asked, model=kind, top=16)
    for sequence, places, among in zip(SEQUENCES, asked, together, strict=True):
        (alone,) = client.fill([sequence], [places], model=kind, top=16)
        assert [place.position for place in among.places] == places and among.num_tokens == len(sequence)
        expected = logprobs(alone)
        assert max(np.abs(found - expected[place]).max() for place, found in logprobs(among).items()) < 1e-5


def test_the_other_strand_of_ps_says_the_same(client: Client) -> None:
    """At the mirrored place, of the complements."""
    ids = encoded(TEXT)
    other = other_strand(torch.tensor([ids]))[0].tolist()
    last = len(ids) - 1
    here, there = client.fill([ids, other], [(2, 7), (last - 2, last - 7)], model="ps", top=16)
    found, mirrored = logprobs(here), logprobs(there)
    assert max(np.abs(found[at] - mirrored[last - at][COMPLEMENT.numpy()]).max() for at in (2, 7)) < 1e-6
    here, there = client.fill([ids, other], [(2, 7), (last - 2, last - 7)], model="ph", top=16)
    assert np.abs(logprobs(here)[2] - logprobs(there)[last - 2][COMPLEMENT.numpy()]).max() > 1e-3


async def test_async_fills_in_the_same(server: ServerProcess, client: Client) -> None:
    async with AsyncClient(server.target, timeout=PATIENCE) as made:
        assert await made.fill(SEQUENCES, [[0]] * len(SEQUENCES), model="ps") == client.fill(
            SEQUENCES, [[0]] * len(SEQUENCES), model="ps"
        )


@torch.inference_mode()
@of_both
@as_folder_and_artifact
def test_classify_agrees_with_the_authors_hidden_states(client: Client, folder: Path, kind: str, form: str) -> None:
    """A classifier averages them, of both strands in -PS; the weights are otherwise the oracle's."""
    oracle = oracles.entry("caduceus", KINDS[kind])
    strands = [oracle["hidden"][..., :16], oracle["hidden"][..., 16:].flip(1, 2)][: 2 if kind == "ps" else 1]
    expected = sum((strand.mean(1) @ SCORE.T for strand in strands), torch.zeros(2, 3)) / len(strands)
    found = client.classify(oracle["input_ids"].tolist(), model=f"{kind}-classifier{form}")
    assert np.abs([each.logits for each in found] - expected.numpy()).max() < TOLERANCE
    among = client.classify([*SEQUENCES, *oracle["input_ids"].tolist()], model=f"{kind}-classifier{form}")
    assert np.abs([each.logits for each in among[-2:]] - expected.numpy()).max() < TOLERANCE
    model = load_foreign(folder / f"{kind}-classifier").classifier
    for sequence, made in zip(SEQUENCES, among, strict=False):
        assert np.abs(model(torch.tensor([encoded(sequence)]))[0].numpy() - made.logits).max() < 1e-5


@as_folder_and_artifact
def test_both_strands_are_of_one_class_to_ps(client: Client, form: str) -> None:
    here = client.classify(SEQUENCES, model=f"ps-classifier{form}")
    there = client.classify([reverse_complement(each) for each in SEQUENCES], model=f"ps-classifier{form}")
    for one, other in zip(here, there, strict=True):
        assert one.label == other.label and np.allclose(one.probabilities, other.probabilities, atol=1e-6)
    of_ph = [client.classify([each], model="ph-classifier")[0] for each in (TEXT, reverse_complement(TEXT))]
    assert abs(of_ph[0].probability - of_ph[1].probability) > 1e-4


def reverse_complement(text: str) -> str:
    return text.translate(str.maketrans("ACGT", "TGCA"))[::-1]


def test_what_models_can_do(client: Client) -> None:
    masked, classifier = client.model("ps"), client.model("ps-classifier")
    assert (masked.task, masked.form, masked.vocab_size) == (Task.FILL, "bidirectional", 16)
    assert classifier.task is Task.CLASSIFY and masked.limits.max_batch_sequences == 4096
    assert masked.state_bytes_per_session == 0 and client.model("writer").task is Task.GENERATE


def test_each_kind_of_model_refuses_what_is_for_others(client: Client, server: ServerProcess) -> None:
    calls: dict[str, Callable[[str], object]] = {
        "generate": lambda model: client.complete("A", model=model, max_tokens=1),
        "fill in masked tokens": lambda model: client.fill(["A[MASK]"], model=model),
    }
    does = {"writer": "generates", "reader": "classifies", "ph": "fills in masked tokens"}
    for model, call in (
        ("reader", "generate"),
        ("ph", "generate"),
        ("writer", "fill in masked tokens"),
        ("reader", "fill in masked tokens"),
    ):
        with pytest.raises(InvalidArgument, match=f"model '{model}' {does[model]}; it cannot {call}"):
            calls[call](model)
    with pytest.raises(InvalidArgument, match="'ph' does not classify; it is made to fill"):
        client.classify(["A"], model="ph")
    with pytest.raises(InvalidArgument, match="model 'ph' fills in masked tokens; it cannot classify"):
        classify_unasked(server, "ph")
    with pytest.raises(InvalidArgument, match="name the model: those of this server that fill in masked tokens are"):
        client.fill(["A[MASK]"])
    with pytest.raises(InvalidArgument, match="model 'ph' fills in masked tokens; it cannot generate"):
        client.open_session("ph")


def classify_unasked(server: ServerProcess, model: str) -> None:
    """The client would ask first what the model does."""
    request = classification_pb2.ClassifyRequest(model=model, inputs=[common_pb2.SequenceInput(text="A")])
    with grpc.insecure_channel(server.target) as channel:
        try:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CLASSIFY)
            method(request.SerializeToString(), timeout=PATIENCE)
        except grpc.RpcError as error:
            raise to_exception(cast(grpc.Call, error), server.target) from error


def test_the_only_model_that_fills_in_needs_no_name(admin: Client, user: Client, models: Path) -> None:
    with pytest.raises(InvalidArgument, match="those of this server that fill in masked tokens are none"):
        user.fill(["A[MASK]"])
    write_caduceus(models / "caduceus", PS)
    admin.load_model("dna", "caduceus")
    (filling,) = user.fill(["A[MASK]C"], top=3)
    assert len(filling.places[0].candidates) == 3
    assert user.classify(["ACGT"])[0].label and user.complete("a", max_tokens=1).token_ids, (
        "they are still the only ones"
    )
    admin.unload_model("dna")


def test_what_is_filled_in_is_counted(client: Client, server: ServerProcess) -> None:
    before = server.metrics()
    client.fill(["AC[MASK]", "[MASK]"], model="ph")
    client.fill(["ACGT"], [(0, 3)], model="ph", separately=True)
    gained = {name: value - before.get(name, 0.0) for name, value in server.metrics().items()}
    assert (gained["ssp_classify_sequences_total"], gained["ssp_classify_tokens_total"]) == (4, 12)


BAD: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sequence 1: it has no mask; put one in, or give positions": (["A[MASK]", "ACG", "AC"], [(), (), ()], {}),
    "sequence 0: position 3 is outside it: positions are 0 to 2": (["ACG", "ACG"], [(3,), (9,)], {}),
    "sequence 1: position 1 is given twice": (["ACG", "ACG"], [(1,), (1, 1)], {}),
    "sequence 1: it must have 1 to 1000000 tokens, not 0": (["[MASK]", ""], None, {}),
    "sequence 0: token id 16 is outside the vocabulary: ids are 0 to 15": ([[MASK, 16]], None, {}),
    "sequence 0: it must be tokens for this model": ([np.zeros((2, 3))], None, {}),
    r"top must be in \[0, 16\], not 17": (["[MASK]"], None, {"top": 17}),
    "one call takes 1 to 4096 sequences, not 0": ([], None, {}),
    "sequence 4096: with it more than 4096 places are masked": ([[7]] * 4097, [(0,)] * 4097, {}),
    "sequence 1: with it more than 4096 places are masked": (["[MASK]" * 4096, "[MASK]"], None, {}),
    "sequence 1: with it more than 1000000 tokens are to be read": (
        ["A" * 5000] * 2,
        [range(150), range(100)],
        {"separately": True},
    ),
    "the vocabulary of model 'no-mask' has no mask; give the model one": ([[7]], [(0,)], {"model": "no-mask"}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_filled_in(client: Client, message: str) -> None:
    sequences, positions, options = BAD[message]
    with pytest.raises(InvalidArgument, match=message):
        client.fill(sequences, positions, **{"model": "ph", **options})
    (filling,) = client.fill(["[MASK]"], model="ph", top=1)
    assert len(filling.places[0].candidates) == 1
