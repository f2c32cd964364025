"""Runs one causal model for many sequences, in a thread of its own.

Each round advances every running sequence by one token in one batch, then folds pieces of prompts (see `scheduler`).
A sequence's slot is its own until its call ends; an idle sequence keeps it until another needs it.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Ids
from concurrent.futures import Future

import torch
from torch import Tensor

from ssp_runtime.engine.backtrack import mark
from ssp_runtime.engine.call import Call, Input
from ssp_runtime.engine.chunks import Herald
from ssp_runtime.engine.config import EngineConfig
from ssp_runtime.engine.decoding import Decoder, collected, gather
from ssp_runtime.engine.executor import Executor
from ssp_runtime.engine.mailbox import Mailbox
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.prefix_cache import PrefixCache
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.prompts import Prompts
from ssp_runtime.engine.rows import Rows
from ssp_runtime.engine.scheduler import Scheduler
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.state_pool import StatePool
from ssp_runtime.engine.stepping import SteppingCall
from ssp_runtime.engine.turns import Turns
from ssp_runtime.errors import Draining, StateCorrupt
from ssp_runtime.models.model import CausalModel

log = logging.getLogger(__name__)

_NOT_FINITE = "the state of this session is not finite any more"


class Engine:
    """`submit` calls from any thread; read them with `Call.take`.

    `deliver` is called from the engine's thread, at most once a round, with calls that have something to take.
    """

    def __init__(
        self,
        model: CausalModel,
        eos_ids: tuple[int, ...],
        config: EngineConfig,
        *,
        deliver: Callable[[list[Call]], None],
        observer: Observer | None = None,
    ) -> None:
        weights = next(model.parameters())
        quantum = config.quantum or 1
        num_slots = -(-config.num_slots // quantum) * quantum
        self._config = config
        self._deliver, self._observer = deliver, observer or Observer()
        self._pool = StatePool(model.state_spec, num_slots, weights.dtype, weights.device)
        self._rows = Rows(self._pool, self._observer, packed=config.quantum is not None)
        self._executor = Executor(model, self._pool, quantum)
        self._eos_ids, self._decoder = eos_ids, Decoder()
        self._prefixes = PrefixCache(config.prefix_bytes)
        scheduler = Scheduler(config.scheduler)
        self._prompts = Prompts(scheduler, self._executor, self._rows, self._prefixes, self._observer)
        self._mailbox = Mailbox()
        self._turns: Turns[Call] = Turns(num_slots, config.scheduler.turn_tokens)
        self._calls: dict[Call, None] = {}
        self._paused: list[Call] = []  # the reader lags, or more input is to come
        self._herald = Herald(self._tell)
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    # Any thread

    @property
    def pool(self) -> StatePool:
        return self._pool

    @property
    def prefixes(self) -> PrefixCache:
        return self._prefixes

    @property
    def num_running(self) -> int:
        return self._pool.num_running

    @property
    def num_waiting(self) -> int:
        return len(self._mailbox) + self._turns.num_waiting + len(self._prompts)

    def retry_after(self) -> float:
        """Seconds after which a call that finds no room may find some."""
        return self._turns.retry_after(self.num_waiting)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends every call at its last token and the thread after them."""
        self._mailbox.stop()
        self._thread.join()

    def submit(self, call: Call) -> None:
        """Queues a call; its sequence must have no other under way. Raises `Draining` once the engine stops."""
        assert call.sequence.call is None
        call.sequence.call = call
        call.accept(self._config.max_ahead, self._eos_ids)
        if not self._mailbox.post(lambda: self._enter(call)):
            call.sequence.call = None
            raise Draining("the model is being unloaded")

    def feed(self, call: SteppingCall, inputs: Ids[Input], *, last: bool = False) -> None:
        """More input for a stepping call."""
        self._mailbox.post(lambda: call.feed(inputs, last=last))

    def cancel(self, call: Call) -> None:
        """Ends a call within one step; its sequence stays at the last computed token."""
        self._mailbox.post(lambda: self._cancel(call))

    def wake(self) -> None:
        """Makes the engine look again: a reader caught up."""
        self._mailbox.wake()

    def copied(self, sequence: Sequence) -> Future[Sequence]:
        """A copy of a sequence as it stands after the round that now runs, a call under way cut there; its state is in
        host memory. Raises `Draining` once the engine stops."""
        copy: Future[Sequence] = Future()

        def make() -> None:
            if sequence.call is not None:
                gather(sequence.call)
            if copy.set_running_or_notify_cancel():  # who waited may have gone
                copy.set_result(self._rows.copied(sequence))

        if not self._mailbox.post(make):
            raise Draining("the model is being unloaded")
        return copy

    def copy_state(self, source: Sequence, target: Sequence) -> None:
        """Gives one idle sequence the state of another, before any call that is submitted on either later."""
        assert source.call is None
        assert target.call is None
        self._mailbox.post(lambda: self._rows.copy_state(source, target))

    def quarantine(self, sequence: Sequence) -> None:
        """The sequence's state was found not to be finite: it is lost, and a call under way ends."""
        self._mailbox.post(lambda: self._quarantine(sequence))

    def discard(self, sequence: Sequence) -> None:
        """Frees what a sequence holds; a call under way on it is cancelled."""
        self._mailbox.post(lambda: self._discard(sequence))

    # The engine's thread

    def _loop(self) -> None:
        torch.set_num_threads(self._config.threads)
        with torch.inference_mode():
            while not self._mailbox.stopping:
                if not self._has_work():
                    self._mailbox.wait(self._herald.patience(time.monotonic(), 1.0))
                try:
                    self._mailbox.obey()
                    self._round()
                except Exception as error:  # our bug; nobody may wait for ever
                    log.exception("the engine failed; all its calls end")
                    self._end_all(FinishReason.ERROR, error)
        self._mailbox.obey()
        self._end_all(FinishReason.ABORT)

    def _end_all(self, reason: FinishReason, error: Exception | None = None) -> None:
        for call in list(self._calls):
            self._finish(call, reason, error)
        self._tell_readers(time.monotonic())

    def _has_work(self) -> bool:
        return bool(self._prompts or self._pool.num_running or any(map(self._may_resume, self._paused)))

    def _round(self) -> None:
        now = time.monotonic()
        for call in self._turns.late(now):
            self._finish(call, FinishReason.ABORT)
        self._resume(now)
        self._turn_over(now)
        if self._pool.num_running:
            self._decode()
        self._fold_prompts()
        self._tell_readers(now)

    def _tell_readers(self, since: float) -> None:
        """At the end of a round; the next takes about as long."""
        now = time.monotonic()
        self._herald.tell(now, now + now - since, len(self._calls))

    # Who has a slot

    def _enter(self, call: Call) -> None:
        self._calls[call] = None
        self._turns.add(call)

    def _resume(self, now: float) -> None:
        for call in list(self._paused):
            if self._may_resume(call):
                self._paused.remove(call)
                call.go_on()
                self._turns.add(call)
            elif call.num_unread and now - call.last_read > self._config.stall_seconds:
                self._finish(call, FinishReason.ABORT)

    def _may_resume(self, call: Call) -> bool:
        return call.has_work and call.num_unread <= call.max_ahead // 2

    def _turn_over(self, now: float) -> None:
        yielding, entering = self._turns.turnover(now)
        for call in yielding:
            self._unseat(call)
        for call in entering:
            self._seat(call)

    def _seat(self, call: Call) -> None:
        self._rows.seat(call.sequence, self._may_leave)
        if call.admitted is None:
            call.admitted = time.monotonic()
            self._observer.admitted(call)
            self._prompts.begin(call)
        self._go_on(call)

    def _unseat(self, call: Call) -> None:
        self._prompts.discard(call)
        self._rows.rest(call.sequence)

    def _pause(self, call: Call) -> None:
        self._turns.rest(call)
        self._unseat(call)
        self._paused.append(call)

    def _may_leave(self, sequence: Sequence) -> bool:
        """Whether its slot is not needed now."""
        return sequence.call is None or not self._turns.has_slot(sequence.call)

    def _go_on(self, call: Call) -> None:
        """What a call that has a slot does next."""
        if call.num_todo == call.held_back == 1:
            call.begin_decoding()
        if call.is_complete:
            self._finish(call, FinishReason.LENGTH)
        elif not call.has_work or call.lags:
            self._pause(call)
        elif self._by_rows(call):
            self._rows.run(call.sequence)
        else:
            self._rows.rest(call.sequence)
            self._prompts.add(call)

    def _by_rows(self, call: Call) -> bool:
        """Whether its inputs are folded one a round, together with what others generate."""
        return self._config.quantum is not None or call.num_to_fold <= call.rows_at_most

    # Computing

    def _fold_prompts(self) -> None:
        for call, count, result in self._prompts.fold(streams=self._pool.num_running):
            if isinstance(result, Exception):
                self._finish(call, FinishReason.ERROR, result)
                continue
            self._put(call, result)
            self._turns.computed(call, count)
            if call.num_to_fold == 0 or call.lags:
                self._prompts.discard(call)
                self._go_on(call)

    def _decode(self) -> None:
        """One token for every running sequence."""
        started = time.monotonic()
        calls = [sequence.call for sequence in self._rows.running() if sequence.call is not None]
        try:
            outputs_RV = self._executor.step([call.next_input for call in calls])
            sums_R = outputs_RV.sum(-1, dtype=torch.float32).tolist()
            tokens = self._decoder.next_tokens(calls, outputs_RV)
        except Exception as error:  # what the states hold now nobody knows
            for call in calls:
                self._finish(call, FinishReason.ERROR, error)
            return
        now = time.monotonic()
        self._turns.stepped(calls)
        self._observer.stepped(len(calls), now - started)
        generated: list[tuple[Call, int]] = []
        for row, (call, total, token) in enumerate(zip(calls, sums_R, tokens, strict=True)):
            if not math.isfinite(total):
                self._finish(call, FinishReason.ERROR, StateCorrupt(_NOT_FINITE))
            elif token is None:
                self._fed(call, outputs_RV[row : row + 1])
            else:
                generated.append((call, token))
        full = [call for call, token in generated if self._generate(call, token)]
        self._observer.generated([(call, call.time_token(now)) for call, _ in generated])
        for call in full:
            self._look_at(call)

    def _generate(self, call: Call, token: int) -> bool:
        """Takes in a token; whether the call is to be looked at."""
        if call.backtrack is not None:
            before = mark(call.sequence, call.text.num_characters, self._rows.row(call.sequence))
            call.backtrack.expect(before)
        if not call.fresh:
            self._herald.expect(call)
        return call.generate(token)

    def _fed(self, call: Call, outputs_LV: Tensor) -> None:
        """A running call folded an input, not what was pending."""
        if call.needs_outputs:
            self._put(call, call.heard(outputs_LV))
        call.skip(1)
        self._prompts.keep_prefix(call)
        if call.num_to_fold == 0 or not self._by_rows(call) or call.lags:
            self._go_on(call)

    def _look_at(self, call: Call) -> None:
        """It has generated a chunk, or its last token, or as far ahead of its reader as it may."""
        progress = collected(call) if call.has_chunk else None
        if progress is not None and progress.finish_reason is not None:
            self._finish(call, progress.finish_reason, token_ids=progress.token_ids, text=progress.text)
            return
        if progress is not None:
            call.put(progress)
            if call.num_generated == 1 or call.num_unread >= call.enough:
                self._herald.news(call)
        if call.num_ahead >= call.max_ahead:
            self._pause(call)
        else:
            call.go_on()

    def _tell(self, calls: list[Call]) -> None:
        for call in calls:
            gather(call)
        self._deliver(calls)

    # The end

    def _finish(
        self,
        call: Call,
        reason: FinishReason,
        error: Exception | None = None,
        token_ids: tuple[int, ...] = (),
        text: str = "",
    ) -> None:
        """Ends a call; the sequence is as after its last token."""
        sequence = call.sequence
        gather(call)
        self._withdraw(call)
        call.give_back()
        if reason is FinishReason.STOP and call.backtrack is not None:
            call.backtrack.before.restore(sequence)
            self._rows.load(sequence, call.backtrack.before.row)
        sequence.end_call(broken=error is not None)
        if sequence.broken or not sequence.kept:
            self._rows.release(sequence)
        self._observer.finished(call, reason)
        if reason is FinishReason.ABORT:
            text = call.text.held
        last = Progress(position=sequence.position, token_ids=token_ids, text=text, finish_reason=reason, error=error)
        self._put(call, last)
        self._mailbox.wake()  # its slot may be what another waits for

    def _withdraw(self, call: Call) -> None:
        del self._calls[call]
        self._turns.forget(call)
        if call in self._paused:
            self._paused.remove(call)
        self._unseat(call)

    def _put(self, call: Call, progress: Progress | None) -> None:
        if progress is not None:
            call.put(progress)
            self._herald.news(call)

    def _cancel(self, call: Call) -> None:
        if call in self._calls:
            self._finish(call, FinishReason.ABORT)

    def _quarantine(self, sequence: Sequence) -> None:
        error = StateCorrupt(_NOT_FINITE)
        if sequence.call is not None:
            self._finish(sequence.call, FinishReason.ERROR, error)
        else:
            sequence.broken = True
            self._rows.release(sequence)
            self._observer.quarantined()

    def _discard(self, sequence: Sequence) -> None:
        sequence.kept = False
        if sequence.call is None:
            self._rows.release(sequence)
        else:
            self._finish(sequence.call, FinishReason.ABORT)
