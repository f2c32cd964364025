from __future__ import annotations

import http.server
import json
import math
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from ssp_client import Client
from ssp_client.bench import prompts, sessions, stats
from ssp_client.bench.arrivals import arrival_times
from ssp_client.cli import main

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure

REQUEST = stats.Request(start=1.0, arrivals=(1.5, 1.6, 2.0), tokens=(1, 1, 4), prompt_tokens=3)


def test_latencies_of_a_request() -> None:
    assert REQUEST.ttft == 0.5 and REQUEST.latency == 1.0
    assert REQUEST.completion_tokens == 6 and REQUEST.tpot == pytest.approx(0.1)
    assert REQUEST.gaps() == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.1])
    assert stats.Request(start=0, arrivals=(1.0,), tokens=(1,)).tpot is None


def test_gaps_sum_to_the_time_after_the_first_token() -> None:
    burst = stats.Request(start=0.0, arrivals=(1.0, 3.0, 4.0), tokens=(3, 2, 5))
    assert sum(burst.gaps()) == pytest.approx(3.0) and len(burst.gaps()) == 7


def test_summary_agrees_with_the_standard_library() -> None:
    values = np.random.default_rng(0).exponential(size=1001).tolist()
    summary = stats.Summary.of(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert (summary.median, summary.p90, summary.p99) == pytest.approx((cuts[49], cuts[89], cuts[98]))
    assert (summary.mean, summary.max, summary.count) == pytest.approx((statistics.fmean(values), max(values), 1001))
    assert stats.Summary.of([]).count == 0


def test_report_counts_goodput() -> None:
    slow = stats.Request(start=0.0, arrivals=(5.0, 9.0), tokens=(1, 1))
    report = stats.Report.of([REQUEST, slow], duration=10.0, failed=1, objectives={"ttft": 0.6, "tpot": 0.2})
    assert (report.completed, report.failed, report.completion_tokens) == (2, 1, 8)
    assert report.requests_per_second == 0.2 and report.output_tokens_per_second == pytest.approx(0.8)
    assert report.goodput == 0.1 and report.itl.count == 6 and report.tpot.count == 2
    assert stats.Report.of([slow], duration=1.0, failed=0, objectives={}).goodput is None


def test_objectives() -> None:
    assert stats.parse_objectives(["ttft:200", "tpot:20"]) == {"ttft": 0.2, "tpot": 0.02}
    for wrong in ("ttft", "ttft:fast", "ttft:-1", "latency:3", "e2e:nan"):
        with pytest.raises(ValueError, match="ttft:200"):
            stats.parse_objectives([wrong])


def test_slope_agrees_with_numpy() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=50).tolist(), generator.normal(size=50).tolist()
    assert stats.slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])
    assert stats.slope([1, 1], [2, 3]) == 0


def test_buckets_are_medians_of_equal_ranges() -> None:
    found = stats.buckets([0, 10, 20, 90, 100], [1.0, 2.0, 9.0, 4.0, 6.0], 2)
    assert [(b.start, b.stop, b.seconds_per_token) for b in found] == [(0, 50, 2.0), (50, 100, 5.0)]
    assert len(stats.buckets([0, 100], [1.0, 1.0], 5)) == 2
    assert len(stats.buckets([7], [1.0], 5)) == 1


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_arrivals_keep_their_rate_and_burstiness(burstiness: float) -> None:
    times = arrival_times(20_000, rate=50, burstiness=burstiness, generator=np.random.default_rng(2))
    gaps = np.diff(times)
    assert times[0] == 0 and gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert (gaps.std() / gaps.mean()) ** 2 == pytest.approx(1 / burstiness, rel=0.1)


def test_arrivals_at_once_and_wrong() -> None:
    generator = np.random.default_rng(0)
    assert not arrival_times(3, rate=math.inf, burstiness=1, generator=generator).any()
    assert len(arrival_times(0, rate=1, burstiness=1, generator=generator)) == 0
    for rate, burstiness in ((0, 1), (1, 0), (math.nan, 1)):
        with pytest.raises(ValueError, match="positive"):
            arrival_times(3, rate=rate, burstiness=burstiness, generator=generator)


def test_prompts(client: Client, tmp_path: Path) -> None:
    model = client.model("counter")
    first, again = (prompts.random_ids(model, 2, 5, np.random.default_rng(3)) for _ in range(2))
    assert (
        np.array_equal(np.asarray(first), np.asarray(again))
        and np.asarray(first).shape == (2, 5)
        and np.asarray(first).max() < 256
    )
    text = tmp_path / "text"
    text.write_text("abcdefghij")
    assert all(str(piece) in "abcdefghij" for piece in prompts.slices(text, 9, 4, np.random.default_rng(0)))
    assert prompts.slices(text, 1, 10, np.random.default_rng(0)) == ["abcdefghij"]
    with pytest.raises(ValueError, match="10 characters"):
        prompts.slices(text, 1, 11, np.random.default_rng(0))


def test_bench_generate(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.seconds_per_chunk = 0.002
    files = ["--json", str(tmp_path / "run.json"), "--plot", str(tmp_path / "plots")]
    load = ["--num-prompts", "6", "--max-tokens", "5", "--concurrency", "2", "--prompt-tokens", "7"]
    assert main(["bench", *load, *files, "--goodput", "ttft:5000", "e2e:0.001"]) == 0
    out = capsys.readouterr().out
    assert "6 completed, 0 failed" in out and "goodput, request/s 0.00" in out and "TTFT" in out and "P99" in out
    assert len(server.requests["Generate"]) == 6 + 2
    sent = server.requests["Generate"][-1]
    assert sent.stream_options.max_chunk_tokens == 1 and sent.sampling_params.ignore_eos
    assert len(sent.input.input_ids.ids) == 7
    results = json.loads((tmp_path / "run.json").read_text())
    assert results["results"]["completion_tokens"] == 30 and results["results"]["itl"]["count"] == 24
    assert results["settings"]["concurrency"] == 2 and results["model"]["name"] == "counter"
    assert (tmp_path / "plots" / "latency.png").stat().st_size > 1000


def test_bench_generate_tells_failures(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.failures["Generate"] = [Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="queue full")]
    arguments = [
        "bench",
        "generate",
        "--num-prompts",
        "3",
        "--warmup",
        "0",
        "--max-tokens",
        "2",
        "--request-rate",
        "500",
    ]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "2 completed, 1 failed" in out and "1 requests failed; the first with ResourceExhausted: queue full" in err
    server.failures["Generate"] = [Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="queue full")] * 3
    assert main(arguments) == 1
    assert "no request succeeded" in capsys.readouterr().err
    assert main(["bench", "--goodput", "fast"]) == 1


def test_bench_position(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--positions", "2500", "--chunk-tokens", "50", "--buckets", "4", "--plot", str(tmp_path)]
    assert main(["bench", "position", *arguments, "--json", str(tmp_path / "run.json")]) == 0
    out = capsys.readouterr().out
    assert "slope" in out and len(out.splitlines()) == 6
    assert [request.sampling_params.max_tokens for request in server.requests["Generate"]] == [1000, 1000, 500]
    assert (tmp_path / "position.png").exists() and not server.positions
    assert len(json.loads((tmp_path / "run.json").read_text())["results"]["buckets"]) == 4


def test_bench_classify(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--lengths", "4", "16", "--num-sequences", "10", "--json", str(tmp_path / "run.json")]
    assert main(["bench", "classify", *arguments]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["LENGTH", "4", "16"]
    assert sum(len(request.sequences) for request in server.requests["ClassifyMany"]) == 2 * (10 + 8)
    assert len(json.loads((tmp_path / "run.json").read_text())["results"]) == 2


@pytest.fixture
def metrics_url() -> Iterator[str]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b"# HELP x\nprocess_resident_memory_bytes_other 1\nprocess_resident_memory_bytes 1.5e+08\n"
            )

        def log_message(self, format: str, *args: object) -> None:
            pass

    page = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{page.server_port}/metrics"
    page.shutdown()
    page.server_close()
    thread.join()


def test_bench_sessions(server: FakeServer, metrics_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sessions", "--count", "5", "--metrics-url", metrics_url]) == 0
    out = capsys.readouterr().out
    assert "2.0 KiB" in out and "524,288" in out and "143.1 MiB" in out
    assert not server.positions and len(server.requests["Append"]) == 5


def test_bench_sessions_tells_how_many_fit(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    full = Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="no room")
    server.failures["Append"] = [None, None, full]  # type: ignore[list-item]  # None: no failure
    assert main(["bench", "sessions", "--count", "5", "--metrics-url", "http://127.0.0.1:1/"]) == 1
    out, err = capsys.readouterr()
    assert "unknown" in out and "sessions opened           3" in out
    assert err == "error: only 3 of 5 sessions could be opened: no room\n"
    assert not server.positions


def test_metrics_pages() -> None:
    assert sessions.find_metric("a 1\nb 2.5e3\n", "b") == 2500
    assert sessions.find_metric("bc 1\n", "b") is None
