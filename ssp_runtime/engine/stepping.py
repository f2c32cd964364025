"""A call whose input comes bit by bit, each bit answered by the model's outputs."""

from __future__ import annotations

import time
from collections.abc import Sequence as Ids

import numpy as np
from torch import Tensor

from ssp_runtime.engine.call import Call, CallOptions, Input
from ssp_runtime.engine.progress import Progress
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import StateCorrupt

MAX_PIECE = 256


class SteppingCall(Call):
    """Feed it through `Engine.feed`. Every token or vector of that brings one row of outputs: logits, or the numbers
    that the model predicts; with `top`, the so many likeliest next tokens. Nothing stays pending.

    What has to be folded before the first input brings no row: the sequence's pending token, or the beginning-of-text
    token `bos_id` of a sequence that begins without it.
    """

    needs_outputs = True
    held_back = 0
    rows_at_most = 8
    largest_piece = MAX_PIECE

    def __init__(
        self, sequence: Sequence, options: CallOptions | None = None, *, bos_id: int | None = None, top: int = 0
    ) -> None:
        super().__init__(sequence, (), options=options)
        self._bos_id, self._top = bos_id, top
        self._ended = False  # no more input will come
        self._num_unasked = 0  # inputs, the next to be folded, that bring no row
        self._rows_put = self._rows_taken = 0
        self._is_read = True

    # The reader

    @property
    def num_unread(self) -> int:
        """Rows."""
        return self._rows_put - self._rows_taken

    def take(self, max_tokens: int) -> list[Progress]:  # noqa: ARG002  # rows are no tokens
        """All there is. It is not kept: there is no retry."""
        self.last_read = time.monotonic()
        taken = [self._unread.popleft() for _ in range(len(self._unread))]
        self._rows_taken += sum(map(_num_rows, taken))
        return taken

    def put_back(self, taken: Ids[Progress]) -> None:
        """Nobody will ask for it again."""

    def leave(self) -> None:
        """Nobody reads it any more."""
        self._is_read = False
        self._unread.clear()

    # The engine

    def feed(self, inputs: Ids[Input], *, last: bool) -> None:
        """More to fold in."""
        if len(inputs) and not self.num_prompt_tokens:
            before = self._before(inputs[0])
            self._inputs.extend(before)
            self._num_unasked = len(before)
        self._inputs.extend(inputs)
        self.num_prompt_tokens += len(inputs)
        self._ended = self._ended or last

    def take_in(self) -> None:
        """What is pending stays so until something is fed."""

    @property
    def has_work(self) -> bool:
        return self._ended or self.num_todo > 0

    @property
    def is_complete(self) -> bool:
        return self._ended and self.num_todo == 0

    def heard(self, outputs_LV: Tensor) -> Progress | None:
        """Raises `StateCorrupt` if they are not finite."""
        count, known = len(outputs_LV), int(self.sequence.pending is not None)
        new = self.upcoming(count)[known:]
        tokens = [token for token in new if isinstance(token, int)]
        self.sequence.recent.extend((token, False) for token in tokens)
        self.sequence.detokenizer.follow(tokens)
        asked_LV, self._num_unasked = outputs_LV[self._num_unasked :], 0
        return self._read_out(asked_LV, self.sequence.folded + count) if len(asked_LV) else None

    def put(self, progress: Progress) -> None:
        super().put(progress if self._is_read else progress._replace(outputs=None, top_ids=None))
        self._rows_put += _num_rows(progress)

    def _before(self, first: Input) -> list[Input]:
        if self.sequence.pending is not None:
            return [self.sequence.pending]
        begins_without = self._bos_id is not None and self.sequence.position == 0 and first != self._bos_id
        return [self._bos_id] if begins_without and self._bos_id is not None else []

    def _read_out(self, outputs_LV: Tensor, position: int) -> Progress:
        values, top_ids = outputs_LV.float(), None
        if self._top:
            best = values.log_softmax(-1).topk(self._top)
            values, top_ids = best.values, best.indices.cpu().numpy()
        outputs = values.cpu().numpy()
        if not np.isfinite(outputs).all():
            raise StateCorrupt("the state of this session is not finite any more")
        return Progress(position=position, outputs=outputs, top_ids=top_ids)

    def _standing(self) -> tuple[int | None, Ids[Input]]:
        """What was fed and not folded is dropped."""
        return self.sequence.pending, ()


def _num_rows(progress: Progress) -> int:
    return 0 if progress.outputs is None else len(progress.outputs)
