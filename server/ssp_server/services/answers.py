"""From rows of outputs, as a model brings them, to answers, as requests were sent."""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssp_runtime.engine.progress import Progress

MAX_WAITING = 4096  # inputs that are not answered, before there is no room for more
MAX_BYTES = 1 << 20  # of outputs in one answer


class Answer(NamedTuple):
    """The answer to one request, or a part of it: `num_left` rows are to come. The session stands at `position` then;
    with `top_ids` the outputs are the log-probabilities of those tokens."""

    position: int
    outputs: npt.NDArray[np.float32]
    top_ids: npt.NDArray[np.int64] | None
    num_left: int


class Answers:
    """Requests come in order, and so do the rows."""

    def __init__(self) -> None:
        self._requests: deque[int] = deque()  # the inputs of each that are not answered
        self._total = 0
        self._has_room = asyncio.Event()
        self._held: list[Progress] = []  # rows of the oldest
        self._held_bytes = 0

    async def room(self) -> None:
        """Waits until there may be more requests."""
        while self._total >= MAX_WAITING:
            self._has_room.clear()
            await self._has_room.wait()

    def expect(self, num_inputs: int) -> None:
        """A request was read."""
        self._requests.append(num_inputs)
        self._total += num_inputs

    def of(self, progress: Progress) -> Iterator[Answer]:
        """What can be answered now. One request is answered as a whole unless its outputs are large."""
        rows = progress.outputs
        start = 0
        while rows is not None and start < len(rows):
            size = rows[0].nbytes
            count = min(max(1, (MAX_BYTES - self._held_bytes) // size), self._requests[0], len(rows) - start)
            self._hold(_part(progress, start, start + count))
            start += count
            if not self._requests[0] or self._held_bytes + size > MAX_BYTES:
                yield self._release()

    def _hold(self, part: Progress) -> None:
        assert part.outputs is not None
        self._held.append(part)
        self._held_bytes += part.outputs.nbytes
        self._requests[0] -= len(part.outputs)
        self._total -= len(part.outputs)
        self._has_room.set()

    def _release(self) -> Answer:
        held, self._held, self._held_bytes = self._held, [], 0
        num_left = self._requests[0] or self._requests.popleft()
        ids = [part.top_ids for part in held if part.top_ids is not None]
        return Answer(
            position=held[-1].position,
            outputs=np.concatenate([part.outputs for part in held if part.outputs is not None]),
            top_ids=np.concatenate(ids) if ids else None,
            num_left=num_left,
        )


def _part(progress: Progress, start: int, end: int) -> Progress:
    assert progress.outputs is not None
    return Progress(
        position=progress.position - (len(progress.outputs) - end),
        outputs=progress.outputs[start:end],
        top_ids=None if progress.top_ids is None else progress.top_ids[start:end],
    )
