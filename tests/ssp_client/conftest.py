from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ssp_client import Client

if TYPE_CHECKING:
    from tests.ssp_client.client_fake import FakeServer
else:
    from client_fake import FakeServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    fake = FakeServer()
    monkeypatch.setenv("SSP_TARGET", fake.target)
    monkeypatch.delenv("SSP_TOKEN", raising=False)
    yield fake
    fake.stop()


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.target, timeout=10) as made:
        yield made
