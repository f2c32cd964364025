from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from ssp_client.cli import main

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import Failure, FakeServer
else:
    from client_fake import Failure

COMMAND = [sys.executable, "-c", "import sys; from ssp_client.cli import main; sys.exit(main())"]


def give_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    buffered = io.BufferedReader(io.BytesIO(content))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffered, encoding="utf-8"))


def test_generate_prints_the_text_and_a_summary(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "abc", "--max-tokens", "5", "--temperature", "0", "--stop", "x", "--stop", "y"]) == 0
    out, err = capsys.readouterr()
    assert out == "3 4 5 6 7 \n"
    assert err.startswith("5 tokens (length), TTFT ") and "tokens/s" in err
    sent = server.requests["Generate"][0].sampling_params
    assert sent.temperature == 0 and sent.HasField("temperature") and list(sent.stop) == ["x", "y"]
    assert not sent.HasField("top_k") and not sent.HasField("ignore_eos")


def test_generate_reads_stdin(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_stdin(monkeypatch, "naïve".encode())
    assert main(["generate", "-", "--max-tokens", "1"]) == 0
    assert capsys.readouterr().out == "5 \n"
    assert server.requests["Generate"][0].input.text == "naïve"


@pytest.mark.usefixtures("server")
def test_generate_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "abc", "--max-tokens", "3", "--json"]) == 0
    chunks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [chunk["token_ids"] for chunk in chunks] == [[3, 4], [5]]
    assert chunks[-1]["finish_reason"] == "length" and chunks[-1]["usage"]["completion_tokens"] == 3


def test_generate_opens_and_continues_a_session(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "abc", "--max-tokens", "2", "--open-session"]) == 0
    err = capsys.readouterr().err
    session_id = err.split()[1]
    assert "session at position 5" in err and server.positions == {session_id: 5}
    assert main(["generate", "--session", session_id, "--max-tokens", "1"]) == 0
    assert capsys.readouterr().out == "5 \n"
    assert main(["generate", "a", "--session", session_id, "--open-session"]) == 1
    assert "not both" in capsys.readouterr().err


def test_ctrl_c_cancels_and_exits_with_130(server: FakeServer) -> None:
    server.seconds_per_chunk = 0.05
    process = subprocess.Popen(
        [*COMMAND, "generate", "a", "--max-tokens", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.read(4) == "1 2 "
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err
    assert server.cancelled.wait(5)


def test_a_reader_that_leaves_is_no_error(server: FakeServer) -> None:
    server.seconds_per_chunk = 0.01
    process = subprocess.Popen(
        [*COMMAND, "generate", "a", "--max-tokens", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr and process.stdout.read(2) == "1 "
    process.stdout.close()
    assert process.wait(10) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_models(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--target", server.target]) == 0
    header, counter, parity = capsys.readouterr().out.splitlines()
    assert header.startswith("NAME") and "1.2M" in counter and "2.0 KiB" in counter and parity.startswith("parity")
    assert main(["models", "parity"]) == 0
    assert "limits.max_batch_sequences  4" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == ["counter", "parity"]
    assert main(["models", "x"]) == 1
    assert capsys.readouterr().err == "error: no model 'x'\n"


def test_health(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health"]) == 0
    assert capsys.readouterr().out == "serving\n"
    server.set_health("ssp.v1.Generation", 2)
    assert main(["health", "--service", "ssp.v1.Generation"]) == 1
    assert capsys.readouterr().out == "not_serving\n"
    assert main(["health", "--service", "ssp.v1.Generation", "--wait", "0.1"]) == 1
    assert "not ready after 0.1 seconds" in capsys.readouterr().err


def test_nobody_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSP_TARGET", "127.0.0.1:1")
    assert main(["health"]) == 1
    assert capsys.readouterr().err == "error: no server answers at 127.0.0.1:1; start one with `ssp-server serve`\n"


def test_sessions(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["sessions", "open", "--model", "counter", "--routing-key", "k"]) == 0
    session_id = capsys.readouterr().out.strip()
    assert session_id.startswith("k.")
    give_stdin(monkeypatch, b"abcd")
    assert main(["sessions", "append", session_id]) == 0
    assert capsys.readouterr().err == "4 tokens, session at position 4\n"
    assert main(["sessions", "append", session_id, "x", "--expected-position", "9"]) == 1
    assert capsys.readouterr().err == "error: the session stands at 4, not at 9\n"
    assert main(["sessions", "get", session_id]) == 0
    assert json.loads(capsys.readouterr().out)["position"] == 4
    assert main(["sessions", "list"]) == 0
    assert session_id in capsys.readouterr().out
    assert main(["sessions", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state_bytes"] == 2048
    assert main(["sessions", "close", session_id]) == 0
    assert not server.positions
    assert main(["sessions", "close", session_id]) == 1


@pytest.mark.parametrize("argv", [[], ["bogus"], ["generate", "--top-k", "many"], ["sessions"], ["models", "--bogus"]])
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2 and capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["generate"], ["classify"], ["bench"], ["bench", "generate"], ["health"]])
def test_help_has_examples_where_there_is_something_to_show(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*argv, "--help"])
    assert caught.value.code == 0
    assert " ".join(["ssp", *argv]) in capsys.readouterr().out


def test_a_token_file_is_sent(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("abc\n")
    assert main(["models", "--token-file", str(tmp_path / "token")]) == 0
    assert server.metadata[0]["authorization"] == "Bearer abc"
    assert main(["models", "--token-file", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"


def test_server_failures_are_one_line(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.failures["Generate"] = [Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="the queue\nis full")]
    assert main(["generate", "a"]) == 1
    assert capsys.readouterr().err == "error: the queue is full\n"


def test_the_command_runs_without_the_extras_missing(server: FakeServer) -> None:
    code = "import sys; sys.modules['tyro'] = None; from ssp_client.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "models"], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert "pip install 'ssp[cli]'" in done.stderr and "Traceback" not in done.stderr
    assert not server.requests
