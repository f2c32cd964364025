"""Calls that have a slot and tokens of their prompt left: folded in pieces, or not at all where others have been."""

import time
from collections.abc import Iterator

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.executor import Executor
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.prefix_cache import PrefixCache, Prefixes
from ssp_runtime.engine.progress import Progress
from ssp_runtime.engine.rows import Rows
from ssp_runtime.engine.scheduler import Scheduler


class Prompts:
    """For the engine's thread."""

    def __init__(
        self, scheduler: Scheduler, executor: Executor, rows: Rows, prefixes: PrefixCache, observer: Observer
    ) -> None:
        self._scheduler, self._executor, self._rows = scheduler, executor, rows
        self._prefixes, self._observer = prefixes, observer
        self._calls: list[Call] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        self._calls.append(call)

    def discard(self, call: Call) -> None:
        if call in self._calls:
            self._calls.remove(call)

    def begin(self, call: Call) -> None:
        """Takes the prompt in; starts from the state that some call had after the same tokens."""
        call.take_in()
        if call.sequence.position or call.needs_outputs or not call.held_back:
            return
        call.prefixes = Prefixes(call.owner, call.upcoming(call.num_todo))  # type: ignore[arg-type]  # all are tokens
        found = self._prefixes.find(call.prefixes)
        if found is not None:
            call.kept_prefix, row = found
            self._rows.load(call.sequence, row)
            call.skip(call.kept_prefix)
            call.cached_tokens = call.kept_prefix

    def keep_prefix(self, call: Call) -> None:
        """For calls whose tokens begin alike, if it is time to."""
        prefixes, count = call.prefixes, call.sequence.folded
        if prefixes is not None and self._prefixes.wanted(prefixes, count, call.kept_prefix):
            self._prefixes.put(prefixes, count, self._rows.row(call.sequence))
            call.kept_prefix = count

    def fold(self, *, streams: int) -> Iterator[tuple[Call, int, Progress | Exception | None]]:
        """Folds as much as one round has time for: each call, how many of its tokens, and what they bring to its reader
        or what went wrong."""
        started, tokens = time.monotonic(), 0
        for call, piece in self._scheduler.pieces(self._calls, streams=streams):
            count = min(piece, call.num_to_fold, call.largest_piece)
            try:
                progress = self._folded(call, count)
            except Exception as error:  # its caller must hear of it, and the thread must live on
                yield call, 0, error
                continue
            tokens += count
            yield call, count, progress
        if tokens:
            seconds = time.monotonic() - started
            self._scheduler.observe_prefill(tokens, seconds)
            self._observer.prefilled(tokens, seconds)

    def _folded(self, call: Call, count: int) -> Progress | None:
        inputs, progress = call.upcoming(count), None
        if call.needs_outputs:
            progress = call.heard(self._executor.outputs(call.sequence, inputs))
        else:
            self._executor.fold(call.sequence, inputs)
        call.skip(count)
        self.keep_prefix(call)
        return progress
