"""Sessions over the wire: they outlive calls, clients and accidents."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest

from ssp_client import (
    Client,
    GenerateChunk,
    InvalidArgument,
    NotFound,
    PositionMismatch,
    SamplingParams,
    SessionBusy,
    StreamOptions,
    Tier,
)
from ssp_client.session import Session
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess, eventually

TEXT = "the quick brown fox"
CONTEXT = [0, *TEXT.encode()]
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


def name() -> str:
    return uuid.uuid4().hex


def generate(session: Session, prompt: str | None = None, max_tokens: int = 8) -> tuple[int, ...]:
    return session.complete(prompt, max_tokens=max_tokens, sampling_params=GREEDY).token_ids


def test_a_session_goes_on_where_it_stood(client: Client, greedy: Greedy) -> None:
    with client.open_session() as session:
        session.append(TEXT[:9])
        session.append(TEXT[9:])
        first, second = generate(session), generate(session)
        greedy.check([*first, *second], CONTEXT)
        third = generate(session, "abc")
        greedy.check(third, [*CONTEXT, *first, *second, *b"abc"])


def test_a_session_is_forked_kept_and_rewound(client: Client, greedy: Greedy) -> None:
    with client.open_session() as session:
        session.append(TEXT)
        assert session.checkpoint("fox").position == 20
        with session.fork(routing_key="tenant-7") as forked:
            assert forked.id.startswith("tenant-7.") and forked.id != session.id
            aside = generate(forked, "abc")
        said = generate(session)
        greedy.check(said, CONTEXT)
        greedy.check(aside, [*CONTEXT, *b"abc"])
        assert [(kept.name, kept.position) for kept in session.info().checkpoints] == [("fox", 20)]
        assert session.rewind("fox").position == 20
        assert generate(session) == said
        with pytest.raises(NotFound, match="no checkpoint 'cat'; there are: fox"):
            session.rewind("cat")
        with pytest.raises(InvalidArgument, match="1 to 64 letters"):
            session.checkpoint("")
        session.drop_checkpoint("fox")
        assert session.info().checkpoints == ()


def test_a_peek_tells_what_a_generation_would_say(client: Client) -> None:
    with client.open_session() as session:
        session.append(TEXT)
        likeliest = client.session(session.fork().detach()).complete(max_tokens=1, sampling_params=GREEDY).token_ids
        before = session.info().status
        scores = session.peek([likeliest, "a", "bc"])
        assert scores[0].total == max(score.total for score in scores) and session.info().status == before
        assert [len(score.logprobs) for score in scores] == [1, 1, 2] and scores[2].token_ids == (98, 99)
        (whole,), (begin,) = client.score([TEXT + "bc"]), client.score([TEXT])
        assert whole.total - begin.total == pytest.approx(scores[2].total, abs=1e-4)
        with pytest.raises(InvalidArgument, match="1 to 1024 inputs can be scored at once, not 0"):
            session.peek([])
        with pytest.raises(InvalidArgument, match="input 1 is empty"):
            session.peek(["a", ""])
        with pytest.raises(InvalidArgument, match="300"):
            client.score([[1, 300]])


def test_version_and_positions(client: Client) -> None:
    with client.open_session() as session:
        assert (session.position, session.version) == (0, 0)
        usage = session.append("def count(a, b, c):")
        assert (usage.prompt_tokens, usage.completion_tokens) == (20, 0)
        assert usage.cached_tokens <= 1, "others may have begun with the same token"
        assert (session.position, session.version) == (20, 1)
        made = session.complete("a", max_tokens=5, temperature=0, ignore_eos=True)
        assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.cached_tokens) == (1, 5, 20)
        assert made.session is not None
        assert (made.session.position, made.session.committed_position, made.session.version) == (26, 26, 2)
        info = session.info()
        assert info.status == made.session and not info.busy and info.model == "writer"


def test_what_the_server_knows_of_a_session(client: Client) -> None:
    with client.open_session(routing_key="tenant-7") as session:
        assert session.id.startswith("tenant-7.")
        before = session.info()
        session.append(TEXT)
        after = session.info()
        assert before.tier is Tier.HOST and after.tier is Tier.DEVICE
        assert before.create_time == after.create_time and before.last_used_time and after.last_used_time
        assert before.last_used_time < after.last_used_time
        assert after.state_bytes == client.model("writer").state_bytes_per_session


def test_a_ttl(client: Client) -> None:
    session = client.open_session(ttl=0.2)
    assert session.info().ttl == 0.2
    with session.fork() as forked:
        assert forked.info().ttl == 0.2
    time.sleep(0.4)
    with pytest.raises(NotFound, match="not used for as long as its ttl"):
        session.append(TEXT)
    with pytest.raises(InvalidArgument, match="ttl must be above 0"):
        client.open_session(ttl=-1)
    with client.open_session() as unlimited:
        assert unlimited.info().ttl is None


def test_closing(client: Client) -> None:
    session = client.open_session()
    session.append(TEXT)
    assert session.close().position == 20
    for again in (session.close, session.info, session.generate_text, lambda: session.append("a")):
        with pytest.raises(NotFound, match="no session has this session_id"):
            again()


def test_sessions_are_listed_page_by_page_oldest_first(client: Client) -> None:
    opened = [client.open_session() for _ in range(5)]
    ids = [session.id for session in opened]
    try:
        listed = [info.session_id for info in client.list_sessions(page_size=2)]
        assert [each for each in listed if each in ids] == ids
        assert [info.session_id for info in client.list_sessions(model="reader")] == []
        for info in client.list_sessions(page_size=1):
            if info.session_id in ids:
                client.session(info.session_id).close()
        assert not {info.session_id for info in client.list_sessions()} & set(ids)
    finally:
        for info in client.list_sessions():
            client.session(info.session_id).close()


def test_the_expected_position_is_checked(client: Client) -> None:
    with client.open_session() as session:
        session.append(TEXT)
        for call in (
            lambda: session.append("a", expected_position=19),
            lambda: list(session.generate(expected_position=21, sampling_params=GREEDY)),
        ):
            with pytest.raises(PositionMismatch, match="stands at position 20, not at"):
                call()
        assert session.info().position == 20
        session.append("a", expected_position=20)


def test_a_retried_open_is_one_session(client: Client) -> None:
    request_id = name()
    with client.open_session(request_id=request_id) as session:
        assert client.open_session(request_id=request_id).id == session.id


def test_a_retry_returns_the_same_and_advances_once(client: Client, greedy: Greedy) -> None:
    with client.open_session() as session:
        once, again = name(), name()
        first = [session.append(TEXT, request_id=once) for _ in range(2)]
        assert first[0] == first[1] and session.position == 20
        answers = [list(session.generate(max_tokens=9, request_id=again, sampling_params=GREEDY)) for _ in range(2)]
        tokens = [[token for chunk in answer for token in chunk.token_ids] for answer in answers]
        assert tokens[0] == tokens[1] and answers[0][-1].usage == answers[1][-1].usage
        assert (session.position, session.version) == (29, 2)
        greedy.check([*tokens[0], *generate(session)], CONTEXT)


def test_a_retry_takes_over_from_a_call_whose_client_is_gone(client: Client, greedy: Greedy) -> None:
    request_id = name()
    with (
        client.open_session() as session,
        session.generate(TEXT, max_tokens=20_000, request_id=request_id, sampling_params=GREEDY) as lost,
    ):
        next(lost)
        with client.session(session.id).generate(
            TEXT, max_tokens=20_000, request_id=request_id, sampling_params=GREEDY
        ) as retry:
            tokens: list[int] = []
            while len(tokens) < 60:
                tokens += next(retry).token_ids
            greedy.check(tokens[:60], CONTEXT)


@pytest.mark.parametrize("dawdles", [False, True])
def test_streams_that_are_closed_early_lose_and_repeat_nothing(client: Client, dawdles: bool) -> None:
    """Where the client dawdles, the server has sent more than it reads."""
    sampling = SamplingParams(temperature=1.0, seed=5, ignore_eos=True)
    with client.open_session() as session:
        session.append(TEXT)
        with session.fork() as whole:
            chunks: list[GenerateChunk] = []
            for count in (1, 2, 3, 40):
                with session.generate(
                    max_tokens=20_000, sampling_params=sampling, stream_options=StreamOptions(max_chunk_tokens=3)
                ) as stream:
                    chunks += islice(stream, count)
                    if dawdles:
                        wait_until_it_is_past(client, session, chunks[-1])
            ids, text = read(chunks)
            last = session.complete(max_tokens=5, sampling_params=sampling)
            expected = whole.complete(max_tokens=len(ids) + len(last.token_ids), sampling_params=sampling)
    assert (*ids, *last.token_ids) == expected.token_ids
    assert text + last.text == expected.text


def test_an_append_between_hands_on_what_a_closed_stream_left(client: Client, greedy: Greedy) -> None:
    with client.open_session() as session:
        with session.generate(TEXT, max_tokens=20_000, sampling_params=GREEDY) as stream:
            first = next(stream)
        computed = session.info().position - len(CONTEXT)
        session.append("abc")
        said = greedy.tokens(CONTEXT, computed)
        following = generate(session)
        greedy.check(following[-8:], [*CONTEXT, *said, *b"abc"])
        assert [*first.token_ids, *following[:-8]] == said


def wait_until_it_is_past(client: Client, session: Session, chunk: GenerateChunk) -> None:
    """By more than a server computes ahead of what it sends."""
    assert chunk.session is not None
    position = chunk.session.position + 32
    eventually(lambda: (client.session(session.id).info().position or 0) > position)


def read(chunks: Iterable[GenerateChunk]) -> tuple[tuple[int, ...], str]:
    chunks = list(chunks)
    return tuple(token for chunk in chunks for token in chunk.token_ids), "".join(chunk.text for chunk in chunks)


def test_two_calls_at_once_are_refused(client: Client) -> None:
    with client.open_session(check_position=False) as session:
        with session.generate(TEXT, max_tokens=20_000, sampling_params=GREEDY) as stream:
            next(stream)
            second = client.session(session.id)
            for call in (lambda: second.append("a"), lambda: second.generate_text("a")):
                with pytest.raises(SessionBusy, match="another call on this session is under way"):
                    call()
            assert second.info().busy
        eventually(lambda: not session.info().busy)


def test_closing_a_busy_session_ends_its_stream(client: Client, server: ServerProcess) -> None:
    session = client.open_session()
    stream = session.generate(TEXT, max_tokens=20_000, sampling_params=GREEDY)
    next(stream)
    client.session(session.id).close()
    chunks = list(stream)
    assert chunks[-1].finish_reason == "abort"
    eventually(lambda: server.metrics()["ssp_state_slots_used"] == 0, within=2)


def test_a_session_belongs_to_its_model(client: Client) -> None:
    with client.open_session() as session, pytest.raises(InvalidArgument, match="belongs to model 'writer'"):
        list(client.generate("a", model="reader", session_id=session.id))


KILLED = """
import sys
from ssp_client import Client
for chunk in Client(sys.argv[1]).generate("to be killed", max_tokens=20_000, temperature=0, ignore_eos=True):
    print("streaming", flush=True)
"""


def test_a_killed_client_frees_its_slot_and_hurts_nobody(client: Client, server: ServerProcess, greedy: Greedy) -> None:
    eventually(lambda: server.metrics()["ssp_num_requests_running"] == 0)
    killed = subprocess.Popen([sys.executable, "-c", KILLED, server.target], stdout=subprocess.PIPE)
    assert killed.stdout is not None and killed.stdout.readline() == b"streaming\n"
    begun = threading.Barrier(8)

    def stream(i: int) -> list[int]:
        tokens: list[int] = []
        with client.generate(f"stream {i}", max_tokens=20_000, temperature=0, ignore_eos=True) as chunks:
            tokens += next(chunks).token_ids
            begun.wait(PATIENCE)
            begun.wait(PATIENCE)  # the other client is dead
            while len(tokens) < 150:
                tokens += next(chunks).token_ids
            begun.wait(PATIENCE)
        return tokens[:150]

    with ThreadPoolExecutor(7) as pool, killed.stdout:
        streams = [pool.submit(stream, i) for i in range(7)]
        begun.wait(PATIENCE)
        assert server.metrics()["ssp_state_slots_used"] == 8
        killed.kill()
        killed.wait(PATIENCE)
        eventually(lambda: server.metrics()["ssp_state_slots_used"] == 7, within=1)
        begun.wait(PATIENCE)
        begun.wait(PATIENCE)
        for i, future in enumerate(streams):
            greedy.check(future.result(PATIENCE), [0, *f"stream {i}".encode()])
    eventually(lambda: server.metrics()["ssp_state_slots_used"] == 0, within=2)
