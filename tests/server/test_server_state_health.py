"""What a server tells of its states' numbers, what it does with those gone bad, and how it audits the others."""

import json
from collections.abc import Iterator

import pytest

from ssp_client import AsyncClient, Client, Internal, SamplingParams
from ssp_client.cli import main
from ssp_server.config import ConfigError, ServerConfig
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess, eventually
from tests.server.tiny_artifacts import write_writer

POISON = 255
TEXT = "the quick brown fox"
CONTEXT = [0, *TEXT.encode()]
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> Greedy:
    return Greedy(write_writer(tmp_path_factory.mktemp("models") / "writer").language_model)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One whose model has a poisonous byte, and where all sessions are audited."""
    folder = tmp_path_factory.mktemp("models")
    write_writer(folder / "writer", POISON)
    with ServerProcess("--models", folder / "writer", "--audit-fraction", "1", "--slots", "4") as made:
        with Client(made.target) as client:
            client.wait_until_ready(PATIENCE, service="ssp.v1.Generation")
        yield made


async def test_the_health_of_a_session_is_told_if_asked_for(client: Client, server: ServerProcess) -> None:
    with client.open_session() as session:
        new = session.info(with_health=True).health
        session.append(TEXT)
        health = session.info(with_health=True).health
        assert new is not None and (new.sound, new.norm, new.largest) == (True, 0.0, 0.0)
        assert health is not None and health.sound and health.largest_in.startswith("layers.")
        assert 0 < health.largest <= health.norm < 1e6
        assert session.info().health is None
        async with AsyncClient(server.target, timeout=PATIENCE) as other:
            assert (await other.session(session.id).info(with_health=True)).health == health


def test_the_health_of_a_busy_session(client: Client) -> None:
    with (
        client.open_session() as session,
        session.generate(TEXT, max_tokens=20_000, sampling_params=GREEDY) as stream,
    ):
        next(stream)
        info = client.session(session.id).info(with_health=True)
        assert info.busy and info.health is not None and info.health.norm > 0


def test_the_command_line_tells_it_too(
    client: Client, server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSP_TARGET", server.target)
    with client.open_session() as session:
        session.append(TEXT)
        assert main(["sessions", "get", session.id, "--health"]) == 0
        assert json.loads(capsys.readouterr().out)["health"]["norm"] > 0
        assert main(["sessions", "get", session.id]) == 0
        assert json.loads(capsys.readouterr().out)["health"] is None


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_session_gone_nan_is_quarantined_and_its_mates_are_not(
    looked_at: bool, client: Client, server: ServerProcess, greedy: Greedy
) -> None:
    before = server.metrics().get("ssp_sessions_quarantined_total", 0.0)
    with (
        client.open_session(check_position=False) as victim,
        client.generate(TEXT, max_tokens=20_000, sampling_params=GREEDY) as mate,
    ):
        tokens = [*next(mate).token_ids]
        victim.append(TEXT)
        victim.checkpoint("sound")
        if looked_at:
            victim.append([POISON, 1])
            assert not victim.info(with_health=True).health.sound  # type: ignore[union-attr]
        else:
            with pytest.raises(Internal):
                victim.complete([1, POISON, 1], max_tokens=4, sampling_params=GREEDY)
        eventually(lambda: server.metrics()["ssp_sessions_quarantined_total"] == before + 1)
        health = victim.info(with_health=True).health
        assert health is not None and (health.sound, health.norm, health.largest_in) == (False, 0.0, "")
        with pytest.raises(Internal):
            victim.append("more")
        assert server.metrics()["ssp_sessions_quarantined_total"] == before + 1
        victim.rewind("sound")
        greedy.check(victim.complete(max_tokens=9, sampling_params=GREEDY).token_ids, CONTEXT)
        assert victim.info(with_health=True).health.sound  # type: ignore[union-attr]
        while len(tokens) < 200:
            tokens += next(mate).token_ids
        greedy.check(tokens[:200], CONTEXT)


def test_audits_are_measured_by_position(client: Client, server: ServerProcess) -> None:
    def audited(position: str) -> float:
        return server.metrics().get(f"ssp_audit_state_difference_count{{{position}}}", 0.0)

    eventually(lambda: server.metrics()["ssp_num_requests_running"] == 0)
    before = audited("64"), audited("1024")
    with client.open_session() as session:
        session.append(TEXT)
        eventually(lambda: audited("64") > before[0])
        session.complete(max_tokens=500, sampling_params=GREEDY)
        eventually(lambda: audited("1024") > before[1])
    samples = server.metrics()
    assert 0 <= samples["ssp_audit_state_difference_sum"] < 1e-2


@pytest.mark.parametrize("fraction", [-0.1, 2.0, float("nan")])
def test_the_fraction_must_be_one(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"--audit-fraction must be in \[0, 1\], not"):
        ServerConfig(audit_fraction=fraction).check()
