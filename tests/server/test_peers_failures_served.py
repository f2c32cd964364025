"""What went wrong in other servers, tried over the wire where only that shows it. Each names whom it happened to."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssp_client import Client, DeadlineExceeded, SamplingParams, StreamOptions
from ssp_client.session import Session
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess, eventually

SLOTS = 16  # of the server
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.fixture
def quiet(server: ServerProcess) -> Iterator[ServerProcess]:
    """Nothing is in a slot before, nor after."""
    eventually(lambda: server.metrics()["ssp_state_slots_used"] == 0)
    yield server
    eventually(lambda: server.metrics()["ssp_state_slots_used"] == 0)


def generate(session: Session, prompt: str | None = None, max_tokens: int = 8) -> tuple[int, ...]:
    return session.complete(prompt, max_tokens=max_tokens, sampling_params=GREEDY).token_ids


def test_a_slot_is_not_freed_twice_on_cancel_and_timeout(client: Client, quiet: ServerProcess, greedy: Greedy) -> None:
    """Triton #7117: the slot came free twice, and two clients then shared a state."""

    def run_out(number: int) -> None:
        stream = client.generate(f"{number}", max_tokens=20_000, sampling_params=GREEDY, timeout=0.3)
        with pytest.raises(DeadlineExceeded), stream:
            for _ in stream:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run_out, range(8)))
        eventually(lambda: quiet.metrics()["ssp_state_slots_used"] == 0)
        prompts = [f"client {i}" for i in range(SLOTS)]
        made = pool.map(lambda prompt: client.complete(prompt, max_tokens=40, sampling_params=GREEDY), prompts)
        for prompt, completion in zip(prompts, made, strict=True):
            greedy.check(completion.token_ids, [0, *prompt.encode()])


def test_a_close_leaks_no_slot(client: Client, quiet: ServerProcess) -> None:
    """SGLang #23496: closing a session left its slot behind."""
    for _ in range(2 * SLOTS):
        with client.open_session() as session:
            generate(session, "abc", max_tokens=2)
    busy = client.open_session()
    stream = busy.generate("abc", max_tokens=20_000, sampling_params=GREEDY)
    next(stream)
    client.session(busy.id).close()
    stream.close()
    eventually(lambda: quiet.metrics()["ssp_state_slots_used"] == 0)
    samples = quiet.metrics()
    assert samples["ssp_state_slots_available"] == SLOTS
    assert samples["ssp_sessions"] == samples["ssp_state_bytes"] == 0


def test_more_sessions_than_the_pool_holds(client: Client, quiet: ServerProcess, greedy: Greedy) -> None:
    """vLLM #49064 refused to start with more sequences than states; TensorRT-LLM #13179 crashed."""
    sessions = [client.open_session() for _ in range(3 * SLOTS)]

    def talk(number: int) -> tuple[int, ...]:
        return (*generate(sessions[number], f"session {number}"), *generate(sessions[number]))

    with ThreadPoolExecutor(len(sessions)) as pool:
        said = list(pool.map(talk, range(len(sessions))))
        assert quiet.metrics()["ssp_state_slots_used"] <= SLOTS
        list(pool.map(Session.close, sessions))
    for number, tokens in enumerate(said):
        greedy.check(tokens, [0, *f"session {number}".encode()])


@pytest.mark.slow
def test_pinned_sessions_do_not_deadlock(client: Client, quiet: ServerProcess, greedy: Greedy) -> None:
    """SGLang #27024: sessions that could not be evicted held every slot, and new calls waited for ever."""
    prompts = [f"slow reader {i}" for i in range(SLOTS)]
    options = StreamOptions(max_chunk_tokens=1, max_chunk_delay_ms=0)  # fills what the transport buffers the soonest
    streams = [
        client.generate(prompt, max_tokens=20_000, sampling_params=GREEDY, stream_options=options) for prompt in prompts
    ]
    begun = [next(stream).token_ids for stream in streams]  # then nobody reads
    eventually(lambda: quiet.metrics()["ssp_num_requests_running"] == 0)
    for i in range(3):
        completion = client.complete(f"new {i}", max_tokens=10, sampling_params=GREEDY)
        greedy.check(completion.token_ids, [0, *f"new {i}".encode()])
    for prompt, stream, first in zip(prompts, streams, begun, strict=True):
        tokens = [*first]
        while len(tokens) < 100:
            tokens += next(stream).token_ids
        stream.close()
        greedy.check(tokens[:100], [0, *prompt.encode()])


def test_what_is_restored_is_reused(client: Client, quiet: ServerProcess) -> None:
    """llama.cpp #25913 and #27813: the restore succeeded, and the whole prompt was computed again."""
    text = uuid.uuid4().hex * 20
    with client.open_session() as session:
        session.append(text)
        others = [client.open_session() for _ in range(SLOTS)]
        with ThreadPoolExecutor(SLOTS) as pool:
            list(pool.map(lambda other: generate(other, "abc"), others))
        before = quiet.metrics()
        made = session.complete("xyz", max_tokens=1, sampling_params=GREEDY)
        after = quiet.metrics()
        for other in others:
            other.close()
    assert after["ssp_session_restores_total"] > before.get("ssp_session_restores_total", 0.0)
    assert made.usage is not None and made.usage.cached_tokens == len(text) + 1
    assert after["ssp_prompt_tokens_total"] - before["ssp_prompt_tokens_total"] == 3
    again = client.complete(text, max_tokens=1, sampling_params=GREEDY)
    assert again.usage is not None and again.usage.cached_tokens == len(text)
    assert quiet.metrics()["ssp_prompt_tokens_total"] == after["ssp_prompt_tokens_total"]


def test_idling_loses_no_state(client: Client, quiet: ServerProcess, greedy: Greedy) -> None:
    """Triton: a sequence that nobody used for a while lost its state. Here its connection is even gone meanwhile."""
    with Client(quiet.target, timeout=PATIENCE) as first:
        session = first.open_session()
        session.append("to be continued")
        session_id = session.detach()
    for i in range(SLOTS + 1):
        client.complete(f"another {i}", max_tokens=2, sampling_params=GREEDY)
    with Client(quiet.target, timeout=PATIENCE) as second:
        again = second.session(session_id)
        greedy.check(generate(again), [0, *b"to be continued"])
        again.close()


LOST = """
import sys
from ssp_client import Client
target, session_id, request_id = sys.argv[1:]
stream = Client(target).session(session_id).generate(
    "once", max_tokens=200, temperature=0, ignore_eos=True, request_id=request_id
)
for chunk in stream:
    print("streaming", flush=True)
    sys.stdin.read()
"""


def test_a_lost_connection_does_not_advance_a_state_twice(client: Client, quiet: ServerProcess, greedy: Greedy) -> None:
    """Triton #3160: the client sent its request again, and the state took it in twice."""
    request_id = uuid.uuid4().hex
    with client.open_session() as session:
        command = [sys.executable, "-c", LOST, quiet.target, session.id, request_id]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as lost:
            assert lost.stdout is not None and lost.stdout.readline() == b"streaming\n"
            lost.kill()
        for _ in range(2):
            with client.session(session.id).generate(
                "once", max_tokens=200, request_id=request_id, sampling_params=GREEDY
            ) as retry:
                tokens = [token for chunk in retry for token in chunk.token_ids]
            assert len(tokens) == 200
            greedy.check(tokens, [0, *b"once"])
            assert session.info().position == 5 + 200
