"""The metrics port: names that dashboards know, counters that count, gauges that come back."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ssp_client import Client, InvalidArgument, StreamOptions
from tests.server.server_process import ServerProcess, eventually

HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "step_seconds",
    "batch_size",
    "classify_batch_seconds",
)
COUNTERS = (
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "request_success_total{length}",
    "classify_sequences_total",
    "classify_tokens_total",
)
GAUGES = (
    "num_requests_running",
    "num_requests_waiting",
    "prefix_cache_bytes",
    "state_slots_used",
    "state_slots_available",
)

Difference = Callable[[], dict[str, float]]


@pytest.fixture
def gained(server: ServerProcess) -> Difference:
    """What was counted since the test began; everything is at rest then."""
    eventually(lambda: server.metrics()["ssp_num_requests_running"] == 0)
    before = server.metrics()

    def difference() -> dict[str, float]:
        return {name: value - before.get(name, 0.0) for name, value in server.metrics().items()}

    return difference


def test_every_metric_is_there_under_its_name(client: Client, server: ServerProcess) -> None:
    client.complete("abc", max_tokens=5, ignore_eos=True)
    client.classify(["ACGT"])
    samples = server.metrics()
    expected = {f"ssp_{name}" for name in (*COUNTERS, *GAUGES)}
    expected |= {f"ssp_{name}{end}" for name in HISTOGRAMS for end in ("_bucket", "_sum", "_count")}
    expected |= {f"ssp_sessions{{{status},{tier}}}" for tier in ("device", "host") for status in ("busy", "idle")}
    expected |= {"ssp_state_bytes{device}", "ssp_state_bytes{host}", "process_resident_memory_bytes"}
    assert expected <= samples.keys(), expected - samples.keys()


def test_generation_is_counted(client: Client, gained: Difference) -> None:
    for _ in range(3):
        client.complete("abcd", max_tokens=10, ignore_eos=True)
    made = gained()
    assert made["ssp_generation_tokens_total"] == 30
    assert made["ssp_request_success_total{length}"] == made["ssp_time_to_first_token_seconds_count"] == 3
    assert made["ssp_inter_token_latency_seconds_count"] == 27
    assert made["ssp_request_time_per_output_token_seconds_count"] == made["ssp_e2e_request_latency_seconds_count"] == 3
    assert made["ssp_e2e_request_latency_seconds_sum"] > made["ssp_time_to_first_token_seconds_sum"] > 0
    assert made["ssp_prompt_tokens_total"] > 0


def test_time_per_output_token_is_the_mean_gap_after_the_first(client: Client, gained: Difference) -> None:
    client.complete("abcd", max_tokens=11, ignore_eos=True)
    made = gained()
    mean_gap = made["ssp_inter_token_latency_seconds_sum"] / made["ssp_inter_token_latency_seconds_count"]
    assert made["ssp_request_time_per_output_token_seconds_sum"] == pytest.approx(mean_gap, rel=1e-3)


def test_classification_is_counted(client: Client, gained: Difference) -> None:
    client.classify(["ACGT", "A", "GG"])
    made = gained()
    assert (made["ssp_classify_sequences_total"], made["ssp_classify_tokens_total"]) == (3, 7)


def test_aborted_requests_are_counted_as_such(client: Client, gained: Difference) -> None:
    with client.generate("a", max_tokens=20_000, ignore_eos=True) as stream:
        next(stream)
    eventually(lambda: gained().get("ssp_request_success_total{abort}", 0) == 1)


def test_gauges_follow_and_come_back_to_zero(client: Client, server: ServerProcess) -> None:
    samples = server.metrics()
    slots = samples["ssp_state_slots_available"] + samples["ssp_state_slots_used"]
    with client.open_session() as session, contextlib.ExitStack() as streams:
        stream = streams.enter_context(session.generate("a", max_tokens=20_000, ignore_eos=True))
        next(stream)
        busy = server.metrics()
        assert busy["ssp_sessions{busy,device}"] == busy["ssp_state_slots_used"] == 1
        assert busy["ssp_state_slots_available"] == slots - 1
        assert busy["ssp_state_bytes{device}"] == session.info().state_bytes
    for name in ("num_requests_running", "num_requests_waiting", "state_slots_used", "sessions", "state_bytes"):
        eventually(lambda name=name: server.metrics()[f"ssp_{name}"] == 0, within=2)  # type: ignore[misc]  # bound now


def test_sessions_beyond_the_slots_are_spilled_and_restored(client: Client, gained: Difference) -> None:
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(client.open_session()) for _ in range(20)]
        for session in sessions:
            session.append("a")
        made = gained()
        assert made["ssp_session_spills_total"] == 4 and made["ssp_sessions{idle,host}"] == 4
        for session in sessions:
            session.complete(max_tokens=1)
        made = gained()
        assert made["ssp_session_restores_total"] >= 4
        assert made["ssp_session_restore_seconds_count{host}"] == made["ssp_session_restores_total"]


def test_what_becomes_of_sessions_is_counted(client: Client, gained: Difference) -> None:
    client.open_session(ttl=0.05)
    with client.open_session() as session:
        session.checkpoint("a")
        session.checkpoint("b")
        session.rewind("a")
        for _ in range(3):
            session.fork().close()
    eventually(lambda: gained().get("ssp_session_expired_total", 0) == 1)
    made = gained()
    names = ("forks", "checkpoints", "rewinds", "expired")
    assert [made[f"ssp_session_{name}_total"] for name in names] == [3, 2, 1, 1]
    assert not made.get("ssp_session_commits_total"), "there is no store"


def test_prefixes_that_are_found_again_are_counted(client: Client, gained: Difference) -> None:
    prompt = "prefixes that are found again"
    first, second = (client.complete(prompt, max_tokens=1).usage for _ in range(2))
    made = gained()
    assert made["ssp_prefix_cache_queries_total"] == 2 * first.prompt_tokens
    assert made["ssp_prefix_cache_hits_total"] == first.cached_tokens + second.cached_tokens
    assert second.cached_tokens == second.prompt_tokens - 1
    assert made["ssp_prefix_cache_bytes"] > 0


def test_sessions_in_a_store_are_counted(client: Client, server: ServerProcess, models: Path, tmp_path: Path) -> None:
    with client.open_session() as session:
        state_bytes = session.info().state_bytes
    room = ("--max-state-bytes", f"{2 * state_bytes}", "--store", tmp_path / "sessions")
    with ServerProcess("--models", models / "writer", *room) as stored, Client(stored.target) as keeping:
        sessions = [keeping.open_session() for _ in range(5)]
        for each in sessions:
            each.append("a")
        made = stored.metrics()
        assert made["ssp_session_commits_total"] == made["ssp_session_commit_seconds_count"] == 10
        assert made["ssp_session_restore_seconds_count{store}"] >= 3
        assert (made["ssp_sessions"], made["ssp_sessions{idle,store}"]) == (5, 3)
        assert made["ssp_state_bytes{device}"] + made["ssp_state_bytes{host}"] == 2 * state_bytes
        assert made["ssp_state_bytes{store}"] >= 5 * state_bytes
    assert "ssp_state_bytes{store}" not in server.metrics()


def test_labels_hold_no_session(client: Client, server: ServerProcess) -> None:
    with client.open_session(routing_key="tenant-7") as session:
        session.complete("a", max_tokens=3)
        with contextlib.suppress(InvalidArgument):
            list(session.generate("a", stream_options=StreamOptions(max_chunk_tokens=0)))
        assert not [name for name in server.metrics() if "tenant-7" in name]
