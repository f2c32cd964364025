"""Snapshots with a right checksum and wrong contents: they are refused, or do nobody any harm."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.errors import ModelMismatch, SnapshotCorrupt, StateCorrupt
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.models.architectures import model_config
from ssp_runtime.models.model import build_model
from ssp_runtime.sessions import snapshot, transfer
from ssp_runtime.tokenizers import ByteTokenizer
from tests.ssp_runtime.engine.engine_harness import PATIENCE, Driver, driver
from tests.ssp_runtime.sessions.forgery import opened, sealed

Header = dict[str, Any]
Tensors = dict[str, Tensor]
PROMPT = list(b"the quick brown fox")


def griffin() -> Artifact:
    """A model whose state has a ring buffer and positions as well."""
    config = model_config("griffin", d_model=16, num_layers=3, dropout=0.0, vocab_size=256)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(config)
    to_recurrent(model)
    description = Description(model=config, form="recurrent", tokenizer=ByteTokenizer())
    return Artifact(description=description, model=model, fingerprint="griffin's")


@pytest.fixture(scope="module")
def run() -> Iterator[Driver]:
    with driver(artifact=griffin(), max_ahead=4) as made:
        yield made


@pytest.fixture(scope="module")
def valid(run: Driver) -> tuple[Header, Tensors]:
    """Of a session with undelivered tokens, half a character, and a pending token."""
    session = run.open()
    run.complete(session, PROMPT, max_tokens=3)
    call = run.start(session, request_id="last", max_tokens=50, logit_bias={0xC3: 100})
    run.wait(lambda: call.num_unread == 4)
    call.take(2)
    run.engine.cancel(call)
    run.ended(call)
    return opened(transfer.pack(transfer.copied(session, run.generator).result(PATIENCE), run.generator))


def use(run: Driver, data: bytes) -> FinishReason:
    """Opens a session of it and generates; how that ended."""
    sequence = transfer.restored(snapshot.read(data), run.generator)
    session = run.sessions.open(run.generator, start=sequence)
    try:
        call = run.start(session, [5], max_tokens=3, temperature=1.0, seed=1, repetition_penalty=1.1)
        run.finish(call)
        assert call.last is not None and call.finish_reason is not None
        if call.finish_reason is FinishReason.ERROR:
            assert isinstance(call.last.error, StateCorrupt)
        return call.finish_reason
    finally:
        run.sessions.close(session.id)


def test_what_was_exported_is_taken(run: Driver, valid: tuple[Header, Tensors]) -> None:
    header, tensors = valid
    assert header["waiting"] == [0xC3] and len(tensors["call.untaken"]) == 2 and header["pending"] == 0xC3
    assert use(run, sealed(header, tensors)) is FinishReason.LENGTH


def position(tensors: Tensors) -> str:
    return next(name for name in tensors if name.endswith("position"))


def ring(tensors: Tensors) -> str:
    return next(name for name in tensors if name.endswith("key_state"))


def put(name: str, value: Any) -> Callable[[Header, Tensors], None]:
    """A field of the header in place of the right one."""

    def change(header: Header, tensors: Tensors) -> None:  # noqa: ARG001
        *way, last = name.split(".")
        for step in way:
            header = header[step]
        header[last] = value

    return change


def replace(name: Callable[[Tensors], str] | str, change: Callable[[Tensor], Tensor]) -> Any:
    def changed(header: Header, tensors: Tensors) -> None:  # noqa: ARG001
        key = name if isinstance(name, str) else name(tensors)
        tensors[key] = change(tensors[key].clone())

    return changed


FORGERIES: dict[str, Callable[[Header, Tensors], Any]] = {
    "no folded": lambda header, _: header.pop("folded"),
    "negative folded": put("folded", -1),
    "huge folded": put("folded", 1 << 62),
    "folded as text": put("folded", "7"),
    "fewer folded than positions": put("folded", 1),
    "negative pending": put("pending", -1),
    "pending outside": put("pending", 256),
    "pending in a list": put("pending", [1]),
    "last used never": put("last_used", float("nan")),
    "last used at the end of time": put("last_used", 1e300),
    "waiting that is text": put("waiting", [97]),
    "waiting outside": put("waiting", [256]),
    "waiting as text": put("waiting", "ab"),
    "about nothing": put("about", None),
    "a call that is none": put("call", 7),
    "half a surrogate pair": put("call.untaken_text", "\ud800"),
    "text that is a number": put("call.taken_text", 1),
    "held that is a list": put("call.held", ["a"]),
    "flushed more than there is": put("call.num_flushed", 1000),
    "a long request_id": put("call.request_id", "x" * 129),
    "an error without one": put("call.finish_reason", "error"),
    "negative left": put("call.num_left", -1),
    "left as truth": put("call.num_left", True),
    "no recent": lambda _, tensors: tensors.pop("recent.ids"),
    "recent of floats": replace("recent.ids", lambda ids: ids.float()),
    "recent in rows": replace("recent.ids", lambda ids: ids[None]),
    "recent outside": replace("recent.ids", lambda ids: ids.fill_(256)),
    "recent negative": replace("recent.ids", lambda ids: ids.fill_(-1)),
    "unequal recent": replace("recent.generated", lambda made: made[1:]),
    "untaken outside": replace("call.untaken", lambda ids: ids.fill_(256)),
    "a state too few": lambda _, tensors: tensors.pop(ring(tensors)),
    "a state that broadcasts": replace(ring, lambda tensor: tensor[:1]),
    "a state of one number": replace(ring, lambda tensor: tensor.flatten()[0]),
    "a state of integers": replace(ring, lambda tensor: tensor.to(torch.int64)),
    "a state of truths": replace(ring, lambda tensor: tensor.bool()),
    "a state of NaN": replace(ring, lambda tensor: tensor.fill_(float("nan"))),
    "a state without end": replace(ring, lambda tensor: tensor.fill_(float("inf"))),
    "a state that float32 cannot hold": replace(ring, lambda tensor: tensor.double().fill_(1e300)),
    "a negative position": replace(position, lambda tensor: tensor.fill_(-1)),
    "a position ahead": replace(position, lambda tensor: tensor.fill_(1 << 40)),
    "a position of floats": replace(position, lambda tensor: tensor.float()),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_cannot_be_is_refused(run: Driver, valid: tuple[Header, Tensors], name: str) -> None:
    header, tensors = copy.deepcopy(valid[0]), dict(valid[1])
    FORGERIES[name](header, tensors)
    with pytest.raises(SnapshotCorrupt, match=r"^the snapshot (holds what cannot be|lacks)"):
        use(run, sealed(header, tensors))


def test_a_state_of_nothing_folded_is_the_initial_one(run: Driver, valid: tuple[Header, Tensors]) -> None:
    """Else a forged state could be kept as that of a prefix, for others."""
    sequence = transfer.restored(snapshot.read(sealed({**valid[0], "folded": 0}, valid[1])), run.generator)
    assert sequence.spilled is None


@pytest.mark.parametrize("spec", [{}, {"a": 1}, {"layers.0.mixer.position": {"shape": [], "kind": "accumulator"}}])
def test_another_layout_is_another_model(run: Driver, valid: tuple[Header, Tensors], spec: dict[str, Any]) -> None:
    with pytest.raises(ModelMismatch):
        use(run, sealed({**valid[0], "state_spec": spec}, valid[1]))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3) | st.just("\udfff"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
DTYPES = st.sampled_from(
    [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]
)
VALUES = st.sampled_from([0.0, -1.0, 1.0, 255.0, 256.0, 6e4, -2e9, 3e38, float("inf"), float("nan")])


@st.composite
def forgeries(draw: st.DrawFn, header: Header, tensors: Tensors) -> bytes:
    """One to three changes of a valid snapshot."""
    header, tensors = copy.deepcopy(header), dict(tensors)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            fields = draw(st.sampled_from([header, header.get("call")]))
            fields = fields if isinstance(fields, dict) and fields else header
            name = draw(st.sampled_from(sorted(fields)))
            fields[name] = draw(JUNK)
            if draw(st.integers(0, 4)) == 0:
                del fields[name]
            continue
        name = draw(st.sampled_from(sorted(tensors)))
        tensors[name] = draw(changed(tensors[name]))
    return sealed(header, tensors)


@st.composite
def changed(draw: st.DrawFn, tensor: Tensor) -> Tensor:
    values = tensor.clone().flatten()
    if values.numel() and draw(st.booleans()):
        values[draw(st.integers(0, values.numel() - 1))] = torch.tensor(draw(VALUES)).to(values.dtype)
    if draw(st.integers(0, 3)) == 0:
        values = values.to(draw(DTYPES))
    shape = draw(st.sampled_from([tensor.shape, values.shape, (*tensor.shape, 1), (1, *tensor.shape)]))
    return values.reshape(shape)[: draw(st.sampled_from([None, None, None, 1]))] if shape else values.reshape(shape)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_forgery_breaks_the_engine(run: Driver, valid: tuple[Header, Tensors], data: st.DataObject) -> None:
    forged = data.draw(forgeries(*valid))
    try:
        use(run, forged)
    except (SnapshotCorrupt, ModelMismatch) as error:
        assert "snapshot" in str(error)


def test_the_engine_still_works(run: Driver, valid: tuple[Header, Tensors]) -> None:
    """After all of the above."""
    assert use(run, sealed(*valid)) is FinishReason.LENGTH
