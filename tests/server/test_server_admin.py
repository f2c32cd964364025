"""How busy a server is, and taking it out of service and back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssp_client import AsyncClient, Client, FinishReason, ModelLoad, ServingStatus, Unavailable
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess, eventually
from tests.server.test_server_models import stream


def load(client: Client, model: str) -> ModelLoad:
    return next(each for each in client.load().models if each.model == model)


def test_a_busy_model_shows_and_comes_back_to_rest(admin: Client, user: Client) -> None:
    eventually(lambda: load(admin, "writer").running == admin.load().calls == 0)
    state_bytes = admin.model("writer").state_bytes_per_session
    with user.open_session("writer") as session:
        session.append("a")
        session.checkpoint("here")
        held = stream(user, "writer", 20_000)
        eventually(lambda: load(admin, "writer").sessions == 1)  # counted once a second
        busy = load(admin, "writer")
        assert busy.state_bytes == 2 * state_bytes
        assert busy.slots_total == 64 and busy.slots_used >= 1 and admin.load().calls == 1
        assert busy.tokens_per_second > 0 and busy.queue_seconds > 0
        held.close()
    eventually(lambda: (after := load(admin, "writer")).running == after.sessions == after.state_bytes == 0)
    assert admin.load().calls == 0 and not admin.load().draining


def test_a_classifier_shows_what_waits(admin: Client, user: Client) -> None:
    outcomes = user.classify_many(("ACGT" * 2000 for _ in range(40)), batch_size=1)
    next(outcomes)
    busy = load(admin, "reader")
    assert busy.waiting > 0 and busy.tokens_per_second > 0 and busy.slots_total == 0
    outcomes.close()  # type: ignore[attr-defined]  # a generator
    eventually(lambda: load(admin, "reader").waiting == 0)


@pytest.fixture
def drained(admin: Client) -> Iterator[None]:
    """The server is drained by the test, and back in service after it."""
    yield
    admin.resume()
    assert admin.health("ssp.v1.Generation") is ServingStatus.SERVING


@pytest.mark.usefixtures("drained")
def test_out_of_service_and_back(admin: Client, user: Client, greedy: Greedy) -> None:
    session = user.open_session("writer")
    session.append("Once")
    held = stream(user, "writer", 100_000)
    many = user.classify_many(iter(lambda: "ACGT", None), batch_size=1, look_ahead=2, model="reader")
    next(many)
    with ThreadPoolExecutor() as threads:
        draining = threads.submit(admin.drain)
        eventually(lambda: admin.load().draining)
        assert not draining.done(), "the stream is still under way"
        assert admin.health("ssp.v1.Generation") is ServingStatus.NOT_SERVING
        assert admin.health() is ServingStatus.SERVING
        with pytest.raises(Unavailable, match="the server is draining"):
            list(many)
        chunks = list(held)
        assert draining.result(PATIENCE) == 0
    for call in (user.open_session, lambda: session.append("b")):
        with pytest.raises(Unavailable, match="the server is draining") as refused:
            call()
        assert refused.value.reason == "DRAINING" and refused.value.retry_after == 5
    assert chunks[-1].finish_reason is FinishReason.ABORT, "it was not ended"
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert tokens[:20] == greedy.tokens([0, *b"a"], 21)[1:]

    admin.resume()
    assert admin.health("ssp.v1.Generation") is ServingStatus.SERVING
    greedy.check(session.complete(max_tokens=20, temperature=0, ignore_eos=True).token_ids, [0, *b"Once"])
    session.close()


@pytest.mark.usefixtures("drained")
def test_a_drain_that_is_taken_back_ends_nothing(admin: Client, user: Client) -> None:
    held = stream(user, "writer", 100_000)
    with ThreadPoolExecutor() as threads:
        draining = threads.submit(admin.drain)
        eventually(lambda: admin.load().draining)
        admin.resume()
        assert draining.result(PATIENCE) == 1
    assert [next(held).finish_reason for _ in range(1000)] == [None] * 1000, "beyond what was under way"
    held.close()


async def test_async(managed: ServerProcess) -> None:
    async with AsyncClient(managed.target, token="admin-token", timeout=PATIENCE) as client:
        assert [model.model for model in (await client.load()).models] == ["writer", "reader"]
        assert (await client.load_model("chat", "writer")).name == "chat"
        assert await client.unload_model("chat", force=True) == 0
        assert await client.drain() == 0
        assert (await client.load()).draining
        await client.resume()
        assert not (await client.load()).draining
