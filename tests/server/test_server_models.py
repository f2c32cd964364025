"""Models that come and go while others serve."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import grpc
import pytest

from ssp.v1 import sessions_pb2
from ssp_client import (
    Client,
    FailedPrecondition,
    FinishReason,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SSPError,
    StreamOptions,
    Unavailable,
)
from ssp_client.status import to_exception
from ssp_client.stream import GenerateStream
from ssp_runtime.errors import Forbidden
from ssp_runtime.formats import artifact
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.models.architectures import model_config
from ssp_runtime.models.model import build_model
from ssp_runtime.tokenizers import ByteTokenizer
from ssp_server.model_roots import ModelRoots
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess, eventually

ONE = StreamOptions(max_chunk_tokens=1)


def stream(client: Client, model: str, max_tokens: int) -> GenerateStream:
    """A stream under way that stays so until it is read."""
    made = client.generate(
        "a",
        model=model,
        max_tokens=max_tokens,
        temperature=0,
        ignore_eos=True,
        request_id="x" * 128,
        stream_options=ONE,
    )
    next(made)
    return made


@pytest.fixture
def bystander(user: Client, greedy: Greedy) -> Iterator[None]:
    """A stream of another model, under way throughout the test, that comes out unhurt."""
    with stream(user, "writer", 20_000) as held:
        yield
        tokens = [token for _ in range(100) for token in next(held).token_ids]
    assert tokens[:40] == greedy.tokens([0, *b"a"], 41)[1:]


@contextlib.contextmanager
def loaded(admin: Client, name: str, folder: str | Path) -> Iterator[None]:
    admin.load_model(name, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(NotFound):
            admin.unload_model(name, force=True)


@pytest.mark.usefixtures("bystander")
def test_a_model_comes_and_goes(admin: Client, user: Client, greedy: Greedy, models: Path, reader: Artifact) -> None:
    model = admin.load_model("chat", str(models / "writer"))
    assert model.name == "chat" and model == user.model("chat")
    session = user.open_session("chat")
    greedy.check(session.complete("Once", max_tokens=20, temperature=0, ignore_eos=True).token_ids, [0, *b"Once"])
    assert admin.load_model("dna", "reader").fingerprint == reader.fingerprint
    assert user.classify(["ACGT"], model="dna")[0].logits == user.classify(["ACGT"], model="reader")[0].logits

    with pytest.raises(FailedPrecondition, match="'chat' has 1 open sessions; close them, or unload it with force"):
        admin.unload_model("chat")
    assert session.complete("!", max_tokens=1).token_ids, "it was unloaded all the same"
    assert admin.unload_model("chat", force=True) == 1
    assert admin.unload_model("dna") == 0
    for call in (session.info, lambda: user.complete("a", model="chat"), lambda: admin.unload_model("chat")):
        with pytest.raises(NotFound):
            call()
    assert [model.name for model in user.models()] == ["writer", "reader"]


@pytest.fixture
def open_once(managed: ServerProcess) -> Iterator[Callable[[str], bool]]:
    """Opens a session with a model in one try, which a client would repeat."""
    with grpc.insecure_channel(managed.target, options=[("grpc.enable_retries", 0)]) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/ssp.v1.Sessions/OpenSession")

        def open_session(model: str) -> bool:
            request = sessions_pb2.OpenSessionRequest(model=model).SerializeToString()
            try:
                method(request, metadata=(("authorization", "Bearer user-token"),), timeout=PATIENCE)
            except grpc.RpcError as error:
                raise to_exception(cast(grpc.Call, error), managed.target) from error
            return True

        yield open_session


def test_calls_under_way_are_finished_and_new_ones_refused(
    admin: Client, user: Client, greedy: Greedy, open_once: Callable[[str], bool]
) -> None:
    with loaded(admin, "chat", "writer"), ThreadPoolExecutor() as threads:
        held = stream(user, "chat", 150)
        unloading = threads.submit(admin.unload_model, "chat", force=True)
        with pytest.raises(Unavailable, match="'chat' is being unloaded"):
            eventually(lambda: not open_once("chat"))
        assert not unloading.done()
        chunks = list(held)
        unloading.result(PATIENCE)
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert len(tokens) == 149 and chunks[-1].finish_reason is FinishReason.LENGTH
    assert tokens[:40] == greedy.tokens([0, *b"a"], 41)[1:]


def test_an_endless_stream_is_ended_at_a_token(admin: Client, user: Client, greedy: Greedy) -> None:
    with loaded(admin, "chat", "writer"):
        held = stream(user, "chat", 100_000)
        assert admin.unload_model("chat") == 0
        chunks = list(held)
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert chunks[-1].finish_reason is FinishReason.ABORT
    assert tokens[:20] == greedy.tokens([0, *b"a"], 21)[1:]


def test_memory_is_given_back(admin: Client, managed: ServerProcess, models: Path) -> None:
    config = model_config("mamba", d_model=512, num_layers=6, dropout=0.0, vocab_size=256)
    model = build_model(config)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    artifact.save(models / "large", model, Description(model=config, tokenizer=ByteTokenizer()))

    def resident() -> float:
        return managed.metrics()["process_resident_memory_bytes"]

    with loaded(admin, "large", "large"):
        first = resident()
    for _ in range(2):
        with loaded(admin, "large", "large"):
            pass
    assert weights > 20e6 and first - resident() > weights / 2


@pytest.mark.parametrize(
    ("name", "folder", "kind", "message"),
    [
        ("a b", "writer", InvalidArgument, "the name of a model must be 1 to 64 letters"),
        ("", "writer", InvalidArgument, "the name of a model must be"),
        ("reader", "writer", FailedPrecondition, "a model is called 'reader' already"),
        ("chat", "", InvalidArgument, "folder must be a path"),
        ("chat", "a\0b", InvalidArgument, "folder must be a path"),
        ("chat", "nowhere", FailedPrecondition, "nowhere is no model folder"),
        ("chat", "x" * 1000, FailedPrecondition, "cannot be read"),
        ("chat", "x" * 1025, InvalidArgument, "of at most 1024 characters"),
        ("chat", "/etc", PermissionDenied, "the folder is not below one that this server's --model-root allows"),
        ("chat", "../writer", PermissionDenied, "the folder is not below"),
    ],
)
def test_what_is_not_loaded(admin: Client, name: str, folder: str, kind: type[SSPError], message: str) -> None:
    with pytest.raises(kind, match=message):
        admin.load_model(name, folder)
    assert len(admin.models()) == 2


def test_one_of_two_that_want_a_name_gets_it(admin: Client) -> None:
    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(admin.load_model, "chat", "writer") for _ in range(4)]
        failures = [load.exception(PATIENCE) for load in loads]
    assert failures.count(None) == 1
    assert all(isinstance(failure, FailedPrecondition) for failure in failures if failure is not None)
    assert admin.unload_model("chat") == 0


def test_a_damaged_model_is_refused_and_its_name_is_free(admin: Client, models: Path, writer: Artifact) -> None:
    damaged = models / "damaged"
    shutil.copytree(models / "writer", damaged)
    (damaged / "config.json").write_text("{}")
    with pytest.raises(FailedPrecondition, match="damaged is of no format that can be read"):
        admin.load_model("chat", "damaged")
    shutil.copy(models / "writer" / "config.json", damaged)
    with loaded(admin, "chat", "damaged"):
        assert admin.model("chat").fingerprint == writer.fingerprint


def test_without_a_root_no_model_is_loaded(client: Client) -> None:
    with pytest.raises(PermissionDenied, match="--model-root FOLDER allows those below a folder"):
        client.load_model("chat", "writer")


def test_links_do_not_lead_out_of_a_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "model", outside):
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
    (root / "link").symlink_to(outside)
    (root / "inner").symlink_to(root / "model")
    (root / "model-with-link").mkdir()
    (root / "model-with-link" / "model.safetensors").symlink_to(outside / "config.json")
    shutil.copytree(root / "model", root / "model-with-linked-words")
    (root / "model-with-linked-words" / "tokenizer.json").symlink_to(outside / "config.json")
    roots = ModelRoots([root])
    for inside in ("model", "inner", str(root / "model"), "./model/", "model/../model"):
        assert roots.find(inside) == ModelRoots([tmp_path / "empty", root]).find(inside) == root / "model"
    for beyond in (
        "link",
        "model-with-link",
        "model-with-linked-words",
        str(outside),
        "..",
        "../outside",
        "model/../../outside",
        str(root) + "er",
    ):
        with pytest.raises(Forbidden):
            roots.find(beyond)
