"""Any order of calls, crashes and restarts, against what each session's tokens say."""

import asyncio
import random
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.sessions.committer import CommitPolicy
from ssp_runtime.sessions.stores import Store
from ssp_runtime.sessions.stores.disk import DiskStore
from tests.ssp_runtime.sessions.hash_chain import logits, scores
from tests.ssp_runtime.sessions.keeper_harness import Home, params
from tests.ssp_runtime.sessions.oracle import Known

T = TypeVar("T")

PROMPTS = st.lists(st.integers(1, 255), min_size=1, max_size=5)
NAMES = st.sampled_from(["a", "b"])
SAMPLING = st.builds(
    lambda count, seed: params(max_tokens=count, **({} if seed is None else {"temperature": 1.0, "seed": seed})),
    st.integers(1, 6),
    st.none() | st.integers(0, 3),
)


class Histories(RuleBasedStateMachine):
    """Two slots, memory for four states, a store for all."""

    policy: ClassVar[CommitPolicy] = CommitPolicy()
    sessions: Bundle[str] = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.known: dict[str, Known] = {}
        self.versions: dict[str, dict[int, Known]] = {}  # of each session: what it was
        self.committed: dict[str, int] = {}  # the version that a crash must not lose
        self.num_requests = 0
        self.home = self.run(self.begun())

    def teardown(self) -> None:
        self.run(self.home.stop())
        self.runner.close()
        self.folder.cleanup()

    def store(self) -> Store:
        return DiskStore(Path(self.folder.name), 1 << 30)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def begun(self) -> Home:
        home = Home(self.store(), slots=2, num_states=4, policy=self.policy)
        await home.start()
        return home

    def do(self, session_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Does something to a session, and looks where it stands then."""
        done = self.run(work)
        self.look(session_id)
        return done

    def look(self, session_id: str) -> None:
        session, known = self.run(self.home.session(session_id)), self.known[session_id]
        standing = session.standing
        assert standing.position == len(known.tokens)
        assert {name: kept.position for name, kept in session.checkpoints.items()} == {
            name: len(tokens) for name, tokens in known.checkpoints.items()
        }
        self.versions.setdefault(session_id, {})[standing.version] = known.copied()
        if self.policy.when_idle:
            assert session.is_clean and session.committed_position == standing.position
            self.committed[session_id] = standing.version

    def request_id(self) -> str:
        self.num_requests += 1
        return str(self.num_requests)

    def add(self, session_id: str, known: Known) -> str:
        self.known[session_id] = known
        self.commit(session_id)
        return session_id

    # Calls

    @rule(target=sessions)
    def open(self) -> str:
        return self.add(self.run(self.home.open()), Known())

    @rule(session=sessions, prompt=PROMPTS)
    def append(self, session: str, prompt: list[int]) -> None:
        self.known[session].append(prompt)
        self.do(session, self.home.append(session, prompt))

    @rule(session=sessions, prompt=PROMPTS, sampling=SAMPLING)
    def generate(self, session: str, prompt: list[int], sampling: SamplingParams) -> None:
        request_id = self.request_id()
        wanted = self.known[session].generate(prompt, sampling, request_id)
        assert self.do(session, self.home.generate(session, prompt, sampling, request_id)) == wanted

    @rule(session=sessions, prompt=PROMPTS, sampling=SAMPLING, cut=st.integers(1, 5), taken=st.integers(0, 5))
    def leave(self, session: str, prompt: list[int], sampling: SamplingParams, cut: int, taken: int) -> None:
        known, request_id = self.known[session], self.request_id()
        cut = min(cut, sampling.max_tokens)
        wanted = known.generate(prompt, sampling, request_id, cut=cut)
        leaving = self.home.leave(session, prompt, sampling, after=cut, taken=taken, request_id=request_id)
        got = self.run(leaving)
        assert got == wanted[: len(got)]
        known.undelivered = wanted[len(got) :]
        self.do(session, self.home.commit(session) if self.policy.when_idle else asyncio.sleep(0))

    @rule(session=sessions)
    def retry(self, session: str) -> None:
        known = self.known[session]
        if known.last is not None:
            last, wanted = known.last, known.retry()
            again = self.home.generate(session, last.prompt, last.params, last.request_id)
            assert self.do(session, again) == wanted

    @rule(session=sessions, tokens=PROMPTS)
    def step(self, session: str, tokens: list[int]) -> None:
        known = self.known[session]
        known.step(tokens)
        outputs = self.do(session, self.home.step(session, tokens))
        for back, row in enumerate(reversed(outputs)):
            assert np.array_equal(row, logits(known.tokens[: len(known.tokens) - back]))

    @rule(target=sessions, session=sessions)
    def fork(self, session: str) -> str:
        return self.add(self.run(self.home.fork(session)), self.known[session].forked())

    @rule(target=sessions, session=sessions)
    def export_and_import(self, session: str) -> str:
        known = self.known[session].carried()
        return self.add(self.run(self.home.imported(self.run(self.home.exported(session)))), known)

    @rule(session=sessions, name=NAMES)
    def checkpoint(self, session: str, name: str) -> None:
        self.known[session].checkpoint(name)
        self.do(session, self.home.checkpoint(session, name))

    @rule(session=sessions, name=NAMES)
    def rewind(self, session: str, name: str) -> None:
        if name in self.known[session].checkpoints:
            self.known[session].rewind(name)
            self.do(session, self.home.rewind(session, name))

    @rule(session=sessions, name=NAMES)
    def drop(self, session: str, name: str) -> None:
        if self.known[session].checkpoints.pop(name, None) is not None:
            self.do(session, self.home.drop(session, name))

    @rule(session=sessions, continuation=PROMPTS)
    def peek(self, session: str, continuation: list[int]) -> None:
        tokens = self.known[session].tokens
        got = self.do(session, self.home.peek(session, continuation)) if tokens else []
        wanted = scores(tokens, continuation)
        assert got == pytest.approx(wanted[len(wanted) - len(got) :], abs=1e-5)

    @rule(session=consumes(sessions))
    def close(self, session: str) -> None:
        self.run(self.home.close(session))
        del self.known[session]

    @rule(chosen=st.lists(sessions, min_size=2, max_size=4, unique=True), prompt=PROMPTS, sampling=SAMPLING)
    def all_at_once(self, chosen: list[str], prompt: list[int], sampling: SamplingParams) -> None:
        """Calls on several sessions, while these are saved and memory is wanted."""
        ids = {session: self.request_id() for session in chosen}
        wanted = [self.known[session].generate(prompt, sampling, ids[session]) for session in chosen]
        assert self.run(self._all(chosen, prompt, sampling, ids)) == wanted
        for session in chosen:
            self.look(session)

    async def _all(
        self, chosen: list[str], prompt: list[int], sampling: SamplingParams, ids: dict[str, str]
    ) -> list[list[int]]:
        calls = [self.home.generate(session, prompt, sampling, ids[session]) for session in chosen]
        others = [self.home.commit(random.choice(chosen)), self.home.put_away()]
        results = await asyncio.gather(*calls, *others)
        return results[: len(calls)]  # type: ignore[return-value]  # those of the calls

    # What happens to them

    @rule(session=sessions)
    def commit(self, session: str) -> None:
        self.do(session, self.home.commit(session))
        self.committed[session] = self.run(self.home.session(session)).standing.version

    @rule()
    def put_away(self) -> None:
        self.run(self.home.put_away())
        for session in self.known:
            self.look(session)

    @rule()
    def restart(self) -> None:
        self.run(self.home.stop())
        self.home = self.run(self.begun())
        for session in self.known:
            self.look(session)

    @rule()
    def crash(self) -> None:
        self.run(self.home.crash())
        self.home = self.run(self.begun())
        for session, versions in self.versions.items():
            if session in self.known:
                version = self.run(self.home.session(session)).standing.version
                assert version >= self.committed[session]
                self.recover(session, version)
                self.versions[session] = {at: known for at, known in versions.items() if at <= version}
                self.look(session)

    def recover(self, session: str, version: int) -> None:
        """If it was saved in the middle of a call, its client asks for that again."""
        versions = self.versions[session]
        is_whole = version in versions
        known = self.known[session] = versions[version if is_whole else min(filter(version.__lt__, versions))].copied()
        if not is_whole:
            assert known.last is not None
            last, known.undelivered = known.last, []
            again = self.home.generate(session, last.prompt, last.params, last.request_id)
            assert self.run(again) == last.tokens

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.home.bytes_in_memory() <= self.home.budget


class HistoriesOnRequest(Histories):
    """Nothing is saved but on request, when memory is wanted, and at the end."""

    policy = CommitPolicy(when_idle=False)


# No shrinking: threads never meet twice in the same way.
QUICK = settings(max_examples=5, stateful_step_count=40, deadline=None, phases=[Phase.generate], database=None)
LONG = settings(QUICK, max_examples=100, stateful_step_count=60)

TestHistories = Histories.TestCase
TestHistories.settings = QUICK
TestHistoriesOnRequest = HistoriesOnRequest.TestCase
TestHistoriesOnRequest.settings = QUICK


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Histories, HistoriesOnRequest])
def test_long_histories(machine: type[Histories]) -> None:
    run_state_machine_as_test(machine, settings=LONG)
