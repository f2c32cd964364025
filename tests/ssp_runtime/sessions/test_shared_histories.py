"""Two servers over one store: whatever either is asked, or both at once, no answer comes from an old state."""

import asyncio
from collections.abc import Coroutine
from itertools import permutations
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from ssp_runtime.errors import SessionMoved
from tests.ssp_runtime.sessions.keeper_harness import Home, params
from tests.ssp_runtime.sessions.oracle import Known
from tests.ssp_runtime.sessions.shared_store import SharedStore

T = TypeVar("T")

SERVERS = st.integers(0, 1)
PROMPTS = st.lists(st.integers(1, 255), min_size=1, max_size=3)


class SharedHistories(RuleBasedStateMachine):
    """Memory for three states on each of two servers. Clients ask again when they are told that a session moved."""

    sessions: Bundle[str] = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.store = asyncio.Runner(), SharedStore()
        self.known: dict[str, Known] = {}
        self.homes = [self.runner.run(self.begun()) for _ in range(2)]

    def teardown(self) -> None:
        for home in self.homes:
            self.runner.run(home.stop())
        self.runner.close()

    async def begun(self) -> Home:
        home = Home(self.store, slots=2, num_states=3)
        await home.start()
        return home

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @rule(target=sessions, server=SERVERS)
    def open(self, server: int) -> str:
        session = self.run(self.homes[server].open())
        self.known[session] = Known()
        return session

    @rule(server=SERVERS, session=sessions, prompt=PROMPTS, count=st.integers(1, 4))
    def generate(self, server: int, session: str, prompt: list[int], count: int) -> None:
        sampling = params(max_tokens=count)
        wanted = self.known[session].generate(prompt, sampling)
        assert self.run(self.homes[server].generate(session, prompt, sampling)) == wanted

    @rule(session=sessions, prompts=st.tuples(PROMPTS, PROMPTS))
    def race(self, session: str, prompts: tuple[list[int], list[int]]) -> None:
        """Both are asked at once. Who is not told that it moved has been heard, one after the other."""
        answers = self.run(self._both(session, prompts))
        heard = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer is not None]
        assert heard
        fitting = [known for order in permutations(heard) if (known := self._after(session, order)) is not None]
        assert fitting, (heard, self.known[session])
        self.known[session] = fitting[0]

    @rule(server=SERVERS, session=sessions)
    def checkpoint(self, server: int, session: str) -> None:
        self.known[session].checkpoint("c")
        self.run(self.homes[server].checkpoint(session, "c"))

    @rule(server=SERVERS, session=sessions)
    def rewind(self, server: int, session: str) -> None:
        if "c" in self.known[session].checkpoints:
            self.known[session].rewind("c")
            self.run(self.homes[server].rewind(session, "c"))

    @rule(server=SERVERS, session=sessions)
    def look(self, server: int, session: str) -> None:
        found = self.run(self.homes[server].session(session))
        assert found.standing.position == len(self.known[session].tokens)

    @rule(server=SERVERS)
    def put_away(self, server: int) -> None:
        self.run(self.homes[server].put_away())

    @rule(server=SERVERS)
    def crash(self, server: int) -> None:
        self.run(self.homes[server].crash())
        self.homes[server] = self.run(self.begun())

    async def _both(self, session: str, prompts: tuple[list[int], list[int]]) -> list[list[int] | None]:
        async def asked(home: Home, prompt: list[int]) -> list[int] | None:
            try:
                return await home.generate(session, prompt, params())
            except SessionMoved:
                return None

        return list(await asyncio.gather(*map(asked, self.homes, prompts)))

    def _after(self, session: str, order: tuple[tuple[list[int], list[int]], ...]) -> Known | None:
        known = self.known[session].copied()
        return known if all(known.generate(prompt, params()) == answer for prompt, answer in order) else None


# No shrinking: threads never meet twice in the same way.
QUICK = settings(max_examples=5, stateful_step_count=30, deadline=None, phases=[Phase.generate], database=None)

TestSharedHistories = SharedHistories.TestCase
TestSharedHistories.settings = QUICK


@pytest.mark.slow
def test_long_shared_histories() -> None:
    run_state_machine_as_test(SharedHistories, settings=settings(QUICK, max_examples=100, stateful_step_count=60))
