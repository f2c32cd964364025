"""A small random language model, and an engine around it that a test can drive and watch."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Ids
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch

from ssp_runtime.engine.audit import Audit
from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.config import EngineConfig
from ssp_runtime.engine.generator import GenerationLimits, Generator
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.scheduler import SchedulerConfig
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.stepping import SteppingCall
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.models.config import BlockConfig, LanguageModelHeadConfig, ModelConfig, TokenEmbeddingConfig
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.sessions.manager import SessionManager
from ssp_runtime.sessions.roster import SessionLimits
from ssp_runtime.sessions.session import Session
from ssp_runtime.tokenizers import ByteTokenizer
from tests.greedy import Greedy

PATIENCE = 30.0  # seconds; every wait has a bound

CONFIG = ModelConfig(
    d_model=32,
    embedding=TokenEmbeddingConfig(vocab_size=256),
    layers=(BlockConfig(mixer=MambaConfig()), BlockConfig(mixer=MambaConfig(ssp=S4DConfig()))),
    head=LanguageModelHeadConfig(tied=False),
)


@cache
def tiny_model() -> LanguageModel:
    """Random and in recurrent form; its logits are spread enough to make greedy texts varied."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LanguageModel(CONFIG)
        torch.nn.init.normal_(model.get_parameter("backbone.embedding.weight"))
        model.lm_head.weight.data *= 4
    to_recurrent(model)
    return model


GREEDY = Greedy(tiny_model())


def tiny_artifact() -> Artifact:
    description = Description(model=CONFIG, form="recurrent", tokenizer=ByteTokenizer())
    return Artifact(description=description, model=tiny_model(), fingerprint="")


class Hooks(Observer):
    """Lets a test act in the engine's thread, at exactly one moment."""

    def __init__(self) -> None:
        self.reset()
        self.audit: Audit | None = None
        self.rows: list[int] = []
        self.spills = self.restores = 0

    def reset(self) -> None:
        """The test acts no more."""
        self.on_prefilled: Callable[[int], object] = lambda _: None
        self.on_token: Callable[[Call], object] = lambda _: None
        self.on_delivered: Callable[[], object] = lambda: None

    def stepped(self, rows: int, seconds: float) -> None:  # noqa: ARG002
        self.rows.append(rows)

    def prefilled(self, tokens: int, seconds: float) -> None:  # noqa: ARG002
        self.on_prefilled(tokens)

    def admitted(self, call: Call) -> None:
        if self.audit is not None:
            self.audit.admitted(call)

    def generated(self, tokens: Ids[tuple[Call, float | None]]) -> None:
        for call, _ in tokens:
            if self.audit is not None:
                self.audit.token_generated(call)
            self.on_token(call)

    def finished(self, call: Call, reason: FinishReason) -> None:  # noqa: ARG002
        if self.audit is not None:
            self.audit.finished(call)

    def spilled(self) -> None:
        self.spills += 1

    def restored(self, seconds: float) -> None:  # noqa: ARG002
        self.restores += 1


class Driver:
    """An engine in its thread, with sessions over it. What a call computes stays unread until `finish` reads it."""

    def __init__(
        self,
        *,
        limits: GenerationLimits,
        session_limits: SessionLimits,
        config: EngineConfig,
        artifact: Artifact | None = None,
    ) -> None:
        self.hooks = Hooks()
        self._news = threading.Condition()
        self._taken: defaultdict[Call, list[Progress]] = defaultdict(list)
        self.generator = Generator(
            "tiny", artifact or tiny_artifact(), config, limits, deliver=self._deliver, observer=self.hooks
        )
        self.engine, self.sessions = self.generator.engine, SessionManager(session_limits)

    def sequence(self) -> Sequence:
        return self.generator.new_sequence(kept=True)

    def open(self) -> Session:
        return self.sessions.open(self.generator)

    def submit(self, sequence: Sequence, prompt: Ids[int] = (), **sampling: Any) -> Call:
        call = self.generator.new_call(sequence, prompt, params(**sampling))
        self.generator.submit(call)
        return call

    def start(self, session: Session, prompt: Ids[int] = (), *, request_id: str = "", **sampling: Any) -> Call:
        return self.sessions.start(session, prompt, params(**sampling), CallOptions(request_id=request_id))

    def append(self, session: Session, prompt: Ids[int], *, request_id: str = "") -> Call:
        return self.ended(self.sessions.start(session, prompt, None, CallOptions(request_id=request_id)))

    def append_to(self, sequence: Sequence, prompt: Ids[int]) -> Call:
        """Folds a prompt in without generating; under way."""
        call = self.generator.new_call(sequence, prompt, None)
        self.generator.submit(call)
        return call

    def step(self, sequence: Sequence, pieces: Iterable[Ids[int]]) -> SteppingCall:
        """A call under way that is fed piece by piece; the last ends it."""
        call = SteppingCall(sequence)
        self.generator.submit(call)
        for piece in pieces:
            self.engine.feed(call, [int(token) for token in piece])
        self.engine.feed(call, (), last=True)
        return call

    def complete(self, owner: Sequence | Session, prompt: Ids[int] = (), **sampling: Any) -> list[int]:
        """Runs a call to its end; its tokens."""
        if isinstance(owner, Session):
            return self.finish(self.start(owner, prompt, **sampling))
        return self.finish(self.submit(owner, prompt, **sampling))

    def finish(self, *calls: Call) -> list[int]:
        """Reads the calls to their ends; the tokens of the last."""
        self.wait(lambda: all(list(map(self._read, calls))))  # reads every one, each time
        return self.tokens(calls[-1])

    def finish_some(self, call: Call, max_tokens: int) -> None:
        """Reads so many tokens of a call."""
        self._taken[call] += call.take(max_tokens)
        self.engine.wake()

    def ended(self, call: Call) -> Call:
        """Waits for a call's end without reading it."""
        self.wait(lambda: call.finish_reason is not None)
        return call

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds; it is looked at whenever the engine has delivered something."""
        with self._news:
            assert self._news.wait_for(condition, PATIENCE), "the engine did not get there"

    def settle(self) -> None:
        """Until the engine has done all it was told so far."""
        self.complete(self.generator.new_sequence(kept=False), [1], max_tokens=1)

    def tokens(self, call: Call) -> list[int]:
        """What was read of a call."""
        return [token for progress in self._taken[call] for token in progress.token_ids]

    def outputs(self, call: SteppingCall) -> np.ndarray:
        """What was read of a call: (L, V)."""
        return np.concatenate([each.outputs for each in self._taken[call] if each.outputs is not None])

    def text(self, call: Call) -> str:
        return "".join(progress.text for progress in self._taken[call])

    def _read(self, call: Call) -> bool:
        ended = call.finish_reason is not None
        self._taken[call] += call.take(1_000_000)
        self.engine.wake()
        return ended

    def _deliver(self, _: list[Call]) -> None:
        self.hooks.on_delivered()
        with self._news:
            self._news.notify_all()


def params(**given: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 0.0, "ignore_eos": True, "max_tokens": 12} | given)


@contextmanager
def driver(
    *,
    slots: int = 8,
    piece: int = 2048,
    max_ahead: int = 32,
    stall_seconds: float = 60.0,
    limits: GenerationLimits | None = None,
    session_limits: SessionLimits | None = None,
    artifact: Artifact | None = None,
    quantum: int | None = None,
    prefix_bytes: int = 0,
    turn_tokens: int = 256,
    started: bool = True,
) -> Iterator[Driver]:
    """An engine whose prompts are folded in pieces of exactly `piece` tokens."""
    config = EngineConfig(
        num_slots=slots,
        max_ahead=max_ahead,
        stall_seconds=stall_seconds,
        quantum=quantum,
        prefix_bytes=prefix_bytes,
        scheduler=SchedulerConfig(min_piece=piece, max_piece=piece, turn_tokens=turn_tokens),
    )
    made = Driver(
        limits=limits or GenerationLimits(),
        session_limits=session_limits or SessionLimits(),
        config=config,
        artifact=artifact,
    )
    if not started:
        yield made
        return
    made.engine.start()
    try:
        yield made
    finally:
        made.engine.stop()
