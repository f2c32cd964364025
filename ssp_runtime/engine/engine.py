"""Runs one language model for many sequences, in a thread of its own.

Each round advances every running sequence by one token in one batch, then folds pieces of prompts (see `scheduler`).
A sequence's slot is its own until its call ends; an idle sequence keeps it until another needs it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ssp_runtime.engine import scores
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.sampling import Draw, sample
from ssp_runtime.engine.scheduler import Scheduler, SchedulerConfig
from ssp_runtime.engine.sequence import Call, FinishReason, Progress, Sequence
from ssp_runtime.engine.state_pool import StatePool
from ssp_runtime.errors import Draining, StateCorrupt
from ssp_runtime.models.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """`num_slots` sequences can compute or rest in the pool. A reader may lag `max_ahead` tokens behind, for at most
    `stall_seconds`; then its call ends. `threads` is how many cores one operation uses."""

    num_slots: int = 64
    max_ahead: int = 32
    stall_seconds: float = 60.0
    threads: int = 1
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)


class Engine:
    """`submit` calls from any thread; read them with `Call.take`.

    `deliver` is called from the engine's thread, once a round, with the calls that have something to take.
    """

    def __init__(
        self,
        model: LanguageModel,
        eos_id: int | None,
        config: EngineConfig,
        *,
        deliver: Callable[[list[Call]], None],
        observer: Observer | None = None,
    ) -> None:
        weights = model.lm_head.weight
        self._model, self._eos_id, self._config = model, eos_id, config
        self._deliver, self._observer = deliver, observer or Observer()
        self._pool = StatePool(model.state_spec, config.num_slots, weights.dtype, weights.device)
        self._scheduler = Scheduler(config.scheduler)
        self._waiting: list[Call] = []  # no slot yet
        self._folding: list[Call] = []  # tokens of the prompt left
        self._paused: list[Call] = []  # the reader lags
        self._inbox: list[Callable[[], None]] = []
        self._wake = threading.Condition()
        self._woken = self._stopping = False
        self._news: list[Call] = []  # calls with something to read, told once a round
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    # Any thread

    @property
    def pool(self) -> StatePool:
        return self._pool

    @property
    def num_running(self) -> int:
        return self._pool.num_running

    @property
    def num_waiting(self) -> int:
        return len(self._inbox) + len(self._waiting) + len(self._folding)

    @property
    def max_ahead(self) -> int:
        return self._config.max_ahead

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends every call at its last token and the thread after them."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, call: Call) -> None:
        """Queues a call; its sequence must have no other under way. Raises `Draining` once the engine stops."""
        assert call.sequence.call is None
        with self._wake:
            if self._stopping:
                raise Draining("the model is being unloaded")
            call.sequence.call = call
            self._post(lambda: self._waiting.append(call))

    def cancel(self, call: Call) -> None:
        """Ends a call within one step; its sequence stays at the last computed token."""
        call.cancel()
        self.wake()

    def copy_state(self, source: Sequence, target: Sequence) -> None:
        """Gives one idle sequence the state of another, before any call that is submitted on either later.

        A spilled state is shared, not copied: nothing ever writes to it.
        """
        assert source.call is None
        assert target.call is None
        self._post(lambda: self._copy_state(source, target))

    def discard(self, sequence: Sequence) -> None:
        """Frees what a sequence holds; a call under way on it is cancelled."""
        self._post(lambda: self._discard(sequence))

    def wake(self) -> None:
        """Makes the engine look again: a call was cancelled, or a reader caught up."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def _post(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    # The engine's thread

    def _loop(self) -> None:
        torch.set_num_threads(self._config.threads)
        with torch.inference_mode():
            while not self._stopping:
                with self._wake:
                    if not (self._inbox or self._woken or self._stopping or self._has_work()):
                        self._wake.wait(timeout=1.0)
                    self._woken = False
                self._obey()
                self._round()
        self._obey()
        for call in self._calls():
            self._finish(call, FinishReason.ABORT)
        self._tell()

    def _obey(self) -> None:
        with self._wake:
            commands, self._inbox = self._inbox, []
        for command in commands:
            command()

    def _has_work(self) -> bool:
        return bool(self._folding or self._pool.num_running or any(self._may_resume(call) for call in self._paused))

    def _calls(self) -> list[Call]:
        running = [self._call_of(owner) for owner in self._pool.running_owners()]
        return [*self._waiting, *self._folding, *self._paused, *running]

    def _call_of(self, owner: object) -> Call:
        assert isinstance(owner, Sequence)
        assert owner.call is not None
        return owner.call

    def _round(self) -> None:
        for call in self._calls():
            if call.cancelled.is_set():
                self._finish(call, FinishReason.ABORT)
        self._resume()
        self._admit()
        if self._pool.num_running:
            self._decode()
        self._fold_prompts()
        self._tell()

    def _tell(self) -> None:
        if self._news:
            news, self._news = self._news, []
            self._deliver(news)

    def _resume(self) -> None:
        for call in list(self._paused):
            if self._may_resume(call):
                if self._make_room(call.sequence):
                    self._paused.remove(call)
                    self._pool.run(call.sequence)
            elif time.monotonic() - call.last_read > self._config.stall_seconds:
                self._finish(call, FinishReason.ABORT)

    def _may_resume(self, call: Call) -> bool:
        return call.num_unread <= self._config.max_ahead // 2

    def _admit(self) -> None:
        """Gives slots to waiting calls, oldest first, as long as there are any."""
        while self._waiting and self._make_room(self._waiting[0].sequence):
            call = self._waiting.pop(0)
            call.admitted = time.monotonic()
            call.take_in()
            self._folding.append(call)

    def _make_room(self, sequence: Sequence) -> bool:
        """Sees to it that the sequence has a slot; False if all are at work."""
        if sequence in self._pool:
            return True
        if self._pool.num_used == self._pool.num_slots and not self._spill_one():
            return False
        started = time.monotonic()
        self._pool.place(sequence, sequence.spilled)
        if sequence.spilled is not None:
            sequence.spilled = None
            self._observer.restored(time.monotonic() - started)
        return True

    def _spill_one(self) -> bool:
        """Moves the longest unused sequence to host memory: an idle one, or one whose call waits behind the one that
        needs its slot, or for its reader."""
        sequences = [owner for owner in self._pool.owners() if isinstance(owner, Sequence)]
        unused = [sequence for sequence in sequences if not sequence.at_work or sequence.call in self._paused]
        if not unused:
            return False
        oldest = min(unused, key=lambda sequence: (sequence.call is not None, sequence.last_used))
        oldest.spilled = self._pool.spill(oldest)
        self._observer.spilled()
        return True

    def _fold_prompts(self) -> None:
        started, tokens = time.monotonic(), 0
        plan = self._scheduler.prefill(self._folding, streams=self._pool.num_running)
        for call, count in plan:
            assert isinstance(call, Call)
            try:
                most = count if call.scores is None else min(count, scores.PIECE)
                tokens += self._fold(call, min(most, len(call.todo) - 1))
            except Exception as error:  # its caller must hear of it, and the thread must live on
                self._finish(call, FinishReason.ERROR, error)
            if len(call.todo) == 1:
                self._begin_decoding(call)
        if tokens:
            seconds = time.monotonic() - started
            self._scheduler.observe_prefill(tokens, seconds)
            self._observer.prefilled(tokens, seconds)

    def _fold(self, call: Call, count: int) -> int:
        """Folds the call's next tokens into its row; all but the last one of the prompt, which stays pending."""
        if count > 0:
            row = self._pool.row(call.sequence)
            ids_L = torch.tensor(call.todo[: count + 1], device=self._model.lm_head.weight.device)
            if call.scores is None:
                new = self._model.fold(ids_L[None, :-1], row)
            else:
                logits_BLV, new = self._model(ids_L[None, :-1], row)
                call.scores += scores.log_probabilities(logits_BLV[0], ids_L[1:])
            for name, tensor in new.items():
                row[name].copy_(tensor)
            call.todo = call.todo[count:]
            call.sequence.folded += count
        return count

    def _begin_decoding(self, call: Call) -> None:
        self._folding.remove(call)
        call.begin_decoding()
        if call.params is None:
            self._finish(call, FinishReason.LENGTH)
        else:
            self._pool.run(call.sequence)

    def _decode(self) -> None:
        """One token for every running sequence."""
        started = time.monotonic()
        calls = [self._call_of(owner) for owner in self._pool.running_owners()]
        try:
            tokens = self._step(calls)
        except Exception as error:  # what the states hold now nobody knows
            for call in calls:
                self._finish(call, FinishReason.ERROR, error)
            return
        self._observer.stepped(len(calls), time.monotonic() - started)
        for call, token in zip(calls, tokens, strict=True):
            if token is None:
                corrupt = StateCorrupt("the state of this session holds NaN or infinite values")
                self._finish(call, FinishReason.ERROR, corrupt)
            else:
                self._advance(call, token)

    def _step(self, calls: list[Call]) -> list[int | None]:
        """The next token of each running call, in slot order; None where the state is corrupt."""
        state = self._pool.running()
        ids_B = torch.tensor([call.sequence.pending for call in calls], device=self._model.lm_head.weight.device)
        logits_BV, _ = self._model.step(ids_B, state, out=state)
        sound_B = torch.isfinite(logits_BV).all(-1).tolist()
        tokens = sample(logits_BV, [self._draw(call) for call in calls])
        return [token if sound else None for token, sound in zip(tokens, sound_B, strict=True)]

    def _draw(self, call: Call) -> Draw:
        sequence, params = call.sequence, call.params
        assert params is not None
        ends = () if call.num_generated >= params.min_tokens else self._end_ids(call)
        if not params.changes_logits:
            return Draw(params=params, position=sequence.position, forbidden=ends)
        recent = [token for token, _ in sequence.recent]
        generated = [token for token, made in sequence.recent if made]
        return Draw(
            params=params, position=sequence.position, recent=recent, recent_generated=generated, forbidden=ends
        )

    def _end_ids(self, call: Call) -> tuple[int, ...]:
        assert call.params is not None
        eos = () if call.params.ignore_eos or self._eos_id is None else (self._eos_id,)
        return (*call.params.stop_token_ids, *eos)

    def _advance(self, call: Call, token: int) -> None:
        """Takes in the token that was drawn for a call."""
        sequence, params = call.sequence, call.params
        assert params is not None
        sequence.folded += 1
        sequence.pending = token
        sequence.recent.append((token, True))
        call.num_generated += 1
        self._time_token(call)
        ended = token in self._end_ids(call)
        text = "" if ended else call.text.push(token)
        if call.text.stopped:
            self._finish(call, FinishReason.STOP, token_ids=(token,), text=text)
        elif ended or call.num_generated >= params.max_tokens:
            reason = FinishReason.STOP if ended else FinishReason.LENGTH
            self._finish(call, reason, token_ids=(token,), text=text + call.text.flush(final=not sequence.kept))
        else:
            self._put(call, Progress(position=sequence.position, token_ids=(token,), text=text))
            if call.num_unread >= self._config.max_ahead:
                self._pool.rest(sequence)
                self._paused.append(call)

    def _time_token(self, call: Call) -> None:
        now = time.monotonic()
        self._observer.token_generated(call, None if call.last_token_at is None else now - call.last_token_at)
        call.first_token_at = call.first_token_at or now
        call.last_token_at = now

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
        for calls in (self._waiting, self._folding, self._paused):
            if call in calls:
                calls.remove(call)
        call.give_back()
        self._pool.rest(sequence)
        sequence.call = None
        sequence.last_used = time.time()
        if sequence.position != sequence.committed_position:
            sequence.committed_position, sequence.version = sequence.position, sequence.version + 1
        sequence.broken = error is not None
        if not sequence.kept or sequence.broken:
            self._release(sequence)
        self._observer.finished(call, reason)
        if reason is FinishReason.ABORT:
            text = call.text.held
        last = Progress(position=sequence.position, token_ids=token_ids, text=text, finish_reason=reason, error=error)
        self._put(call, last)
        self._woken = True  # its slot may be what another waits for

    def _put(self, call: Call, progress: Progress) -> None:
        call.put(progress)
        self._news.append(call)

    def _copy_state(self, source: Sequence, target: Sequence) -> None:
        row = self._pool.copied(source) if source in self._pool else source.spilled
        self._release(target)
        target.spilled = row

    def _discard(self, sequence: Sequence) -> None:
        sequence.kept = False
        if sequence.call is None:
            self._release(sequence)
        else:
            sequence.call.cancel()

    def _release(self, sequence: Sequence) -> None:
        self._pool.release(sequence)
        sequence.spilled = None
