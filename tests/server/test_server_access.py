"""Who may make the administrator's calls."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ssp.v1 import admin_pb2, generation_pb2, models_pb2
from ssp_client import Client, NotFound, PermissionDenied, Unauthenticated
from ssp_server.access import Access, is_admin_call
from ssp_server.config import ConfigError, ServerConfig
from tests.server.server_process import PATIENCE, ServerProcess

GENERATE = generation_pb2.DESCRIPTOR.services_by_name["Generation"].methods_by_name["Generate"]
LOADS = admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods_by_name["GetLoads"]
MODELS = models_pb2.DESCRIPTOR.services_by_name["Models"]

CODES = {16: "UNAUTHENTICATED", 7: "PERMISSION_DENIED"}


def answers(access: Access, authorization: str) -> tuple[str, str]:
    """What a caller is told, of an ordinary and of an administrator's call."""
    refusals = [access.refusal(method, authorization) for method in (GENERATE, LOADS)]
    user, admin = ("OK" if refusal is None else CODES[refusal.code] for refusal in refusals)
    return user, admin


def test_the_administrators_calls() -> None:
    assert all(map(is_admin_call, admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods))
    names = {method.name for method in MODELS.methods if is_admin_call(method)}
    assert names == {"LoadModel", "UnloadModel"} and not is_admin_call(GENERATE)


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("", ("UNAUTHENTICATED", "UNAUTHENTICATED")),
        ("Bearer wrong", ("UNAUTHENTICATED", "UNAUTHENTICATED")),
        ("Bearer user", ("OK", "PERMISSION_DENIED")),
        ("Bearer admin", ("OK", "OK")),
        ("admin", ("UNAUTHENTICATED", "UNAUTHENTICATED")),
    ],
)
def test_two_tokens(authorization: str, expected: tuple[str, str]) -> None:
    access = Access(tenants={"user": ""}, admin_token="admin", admins_are_trusted=True)
    assert answers(access, authorization) == expected


def test_an_administrator_where_everybody_is_let_in() -> None:
    access = Access(admin_token="admin", admins_are_trusted=True)
    assert answers(access, "") == ("OK", "PERMISSION_DENIED")
    assert answers(access, "Bearer admin") == ("OK", "OK")


@pytest.mark.parametrize(
    ("host", "insecure", "expected"),
    [
        ("127.0.0.1", False, "OK"),
        ("localhost", False, "OK"),
        ("::1", False, "OK"),
        ("0.0.0.0", False, "PERMISSION_DENIED"),
        ("0.0.0.0", True, "OK"),
    ],
)
def test_without_an_administrators_token_the_address_decides(
    tmp_path: Path, host: str, insecure: bool, expected: str
) -> None:
    (tmp_path / "token").write_text("user")
    access = ServerConfig(host=host, insecure=insecure, token_file=tmp_path / "token").access()
    assert answers(access, "Bearer user") == ("OK", expected)


def test_over_the_wire(managed: ServerProcess, user: Client, admin: Client) -> None:
    calls: list[Callable[[Client], object]] = [
        lambda client: client.load(),
        lambda client: client.drain(),
        lambda client: client.resume(),
        lambda client: client.load_model("a", "writer"),
        lambda client: client.unload_model("writer"),
    ]
    with Client(managed.target, timeout=PATIENCE) as nobody:
        for call in calls:
            with pytest.raises(PermissionDenied, match="needs the administrator's token"):
                call(user)
            with pytest.raises(Unauthenticated):
                call(nobody)
    assert not admin.load().draining and [model.name for model in admin.models()] == ["writer", "reader"]


def access_of(path: Path, text: str) -> Access:
    path.write_text(text)
    return ServerConfig(token_file=path).access()


def test_a_token_a_tenant(tmp_path: Path) -> None:
    access = access_of(tmp_path / "tokens", "lab:first\n\n clinic:second \n")
    assert [access.tenant(f"Bearer {token}") for token in ("first", "second")] == ["lab", "clinic"]
    assert answers(access, "Bearer first") == ("OK", "OK")
    assert answers(access, "Bearer lab:first")[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize("text", ["lab:same\nclinic:same", "lab:", "first\nsecond", "lab:first\nsecond"])
def test_a_token_file_that_means_nothing(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one token, or lines TENANT:TOKEN"):
        access_of(tmp_path / "tokens", text)


def test_a_tenant_sees_its_own_sessions_only(models: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("lab:first\nclinic:second\n")
    with (
        ServerProcess("--models", models / "writer", "--token-file", tokens) as server,
        Client(server.target, token="first", timeout=PATIENCE) as lab,
        Client(server.target, token="second", timeout=PATIENCE) as clinic,
        lab.open_session() as session,
    ):
        session.append("secret")
        with pytest.raises(NotFound, match="no session has this session_id"):
            clinic.session(session.id).info()
        assert list(clinic.list_sessions()) == [] and [info.session_id for info in lab.list_sessions()] == [session.id]
        theirs = [client.open_session(request_id="same").id for client in (lab, clinic)]
        assert theirs[0] != theirs[1]
        assert lab.complete("a secret", max_tokens=1).usage.cached_tokens == 0
        assert lab.complete("a secret", max_tokens=1).usage.cached_tokens == 8
        assert clinic.complete("a secret", max_tokens=1).usage.cached_tokens == 0
