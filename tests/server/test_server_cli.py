"""Every `ssp` command once against a real server."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ssp_client.cli import main
from tests.greedy import Greedy
from tests.server.server_process import ServerProcess

Run = Callable[..., str]
GREEDY = ("--temperature", "0", "--ignore-eos")


@pytest.fixture
def run(server: ServerProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command that must succeed; its output."""
    monkeypatch.setenv("SSP_TARGET", server.target)

    def run(*arguments: str | Path) -> str:
        code = main([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


def test_generate(run: Run, greedy: Greedy) -> None:
    expected = bytes(greedy.tokens([0, *b"Once"], 20)).decode(errors="replace")
    assert run("generate", "Once", "--max-tokens", "20", *GREEDY) == expected + "\n"


def test_sessions(run: Run, greedy: Greedy) -> None:
    session_id = run("sessions", "open", "--routing-key", "cli").strip()
    run("sessions", "append", session_id, "Once")
    chunks = run("generate", "--session", session_id, "--max-tokens", "9", "--json", *GREEDY).splitlines()
    greedy.check([token for chunk in chunks for token in json.loads(chunk)["token_ids"]], [0, *b"Once"])
    assert json.loads(run("sessions", "get", session_id))["position"] == 5 + 9
    assert session_id in run("sessions", "list")
    run("sessions", "checkpoint", session_id, "here")
    fork = run("sessions", "fork", session_id, "--routing-key", "cli").strip()
    run("sessions", "append", fork, "!")
    run("sessions", "append", session_id, "abc")
    run("sessions", "rewind", session_id, "here")
    places = [json.loads(run("sessions", "get", each)) for each in (session_id, fork)]
    assert [place["position"] for place in places] == [14, 15]
    assert places[0]["checkpoints"] == [{"name": "here", "position": 14}]
    assert run("sessions", "peek", session_id, "a", "b").count("\n") == 3
    run("sessions", "checkpoint", session_id, "here", "--drop")
    run("sessions", "close", session_id, fork)
    assert session_id not in run("sessions", "list")


def test_classify(run: Run, tmp_path: Path) -> None:
    fasta = tmp_path / "reads.fasta"
    fasta.write_text(">first\nGATT\nACA\n>second\nNNN\n>third\nacgt\n")
    lines = [json.loads(line) for line in run("classify", fasta, "--output", "jsonl").splitlines()]
    assert [line["name"] for line in lines] == ["first", "second", "third"]
    assert len(run("classify", fasta, "--output", "csv").splitlines()) == 4


def test_models(run: Run) -> None:
    table = run("models")
    assert "writer" in table and "reader" in table and "mamba(s4d)" in table
    assert json.loads(run("models", "writer", "--json"))["vocab_size"] == 256


def test_models_come_and_go(
    run: Run, managed: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSP_TARGET", managed.target)
    monkeypatch.setenv("SSP_TOKEN", "admin-token")
    run("models", "load", "chat", "writer")
    assert "chat" in run("models")
    session_id = run("sessions", "open", "--model", "chat").strip()
    assert main(["models", "unload", "chat"]) == 1
    assert "has 1 open sessions" in capsys.readouterr().err
    run("models", "unload", "chat", "--force")
    assert "chat" not in run("models") and session_id not in run("sessions", "list")


def test_admin(run: Run, managed: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSP_TARGET", managed.target)
    monkeypatch.setenv("SSP_TOKEN", "admin-token")
    header, *rows = run("admin", "loads").splitlines()
    assert header.split()[:4] == ["MODEL", "RUNNING", "WAITING", "SLOTS"] and rows[0].split()[3].endswith("/64")
    run("admin", "drain")
    assert json.loads(run("admin", "loads", "--json"))["draining"]
    run("admin", "drain", "--resume")
    assert not json.loads(run("admin", "loads", "--json"))["draining"]


def test_health(run: Run) -> None:
    assert run("health", "--service", "ssp.v1.Classification") == "serving\n"


def test_bench_generate(run: Run, tmp_path: Path) -> None:
    out = run("bench", "generate", "--num-prompts", "4", "--max-tokens", "8", "--json", tmp_path / "run.json")
    assert "TTFT" in out and "TPOT" in out
    assert json.loads((tmp_path / "run.json").read_text())["results"]["errors"] == []


def test_bench_position(run: Run) -> None:
    out = run("bench", "position", "--positions", "300", "--chunk-tokens", "100", "--buckets", "2")
    assert "MS/TOKEN" in out and "slope" in out


def test_bench_classify(run: Run) -> None:
    lines = run("bench", "classify", "--lengths", "8", "32", "--num-sequences", "5").splitlines()
    assert [line.split()[0] for line in lines] == ["LENGTH", "8", "32"]


def test_score(run: Run) -> None:
    header, *rows = run("score", "one text", "another").splitlines()
    assert header.split() == ["LOG", "P", "BITS/TOKEN", "TEXT"] and len(rows) == 2


def test_bench_sessions(run: Run, server: ServerProcess) -> None:
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    out = run("bench", "sessions", "--count", "3", "--metrics-url", url)
    assert "sessions opened           3\n" in out and "unknown" not in out
    assert run("sessions", "list").count("\n") == 1


def test_a_wrong_value_ends_with_one_clear_line(
    server: ServerProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSP_TARGET", server.target)
    for value, message in (("-1", "max_tokens"), ("0", "max_tokens must be in [1, 20000], not 0")):
        assert main(["generate", "a", "--max-tokens", value]) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and message in err and err.count("\n") == 1
