"""Whether states are still what their tokens lead to: some are computed again, from the beginning and in parallel form.

The tokens of watched sequences are kept as they come. When a call on one ends, a thread of its own folds them anew, in
the dtype that is served, and compares. One that is fed step by step is not watched any more, nor is a session that was
put back.
"""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.engine import Engine
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import Draining
from ssp_runtime.models.model import CausalModel
from ssp_runtime.state import State

MAX_TOKENS = 16_384  # of a sequence; longer ones are not watched any more
_PIECE = 2048

log = logging.getLogger(__name__)

Report = Callable[[int, float, float], None]
"""Is told the tokens folded, the largest difference, and the largest magnitude in the state."""


class Audit:
    """One audit at a time: while one goes on, no other is begun. `report` is called from a thread of its own."""

    def __init__(self, model: CausalModel, report: Report, *, max_tokens: int = MAX_TOKENS) -> None:
        self._model, self._report, self._max_tokens = model, report, max_tokens
        self._engine: Engine | None = None
        self._tokens: MutableMapping[Sequence, array[int]] = WeakKeyDictionary()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self.is_under_way = False

    def attach(self, engine: Engine) -> None:
        """The engine whose calls are told of."""
        self._engine = engine

    def watch(self, sequence: Sequence) -> None:
        """From any thread, before any call on the sequence."""
        self._tokens.setdefault(sequence, array("q"))

    # The engine's thread

    def admitted(self, call: Call) -> None:
        tokens = self._tokens.get(call.sequence)
        if tokens is not None:
            left = self._max_tokens - len(tokens)
            tokens.extend(token for token in call.prompt[:left] if isinstance(token, int))

    def token_generated(self, call: Call) -> None:
        tokens = self._tokens.get(call.sequence)
        if tokens is not None and len(tokens) < self._max_tokens:
            assert call.sequence.pending is not None
            tokens.append(call.sequence.pending)

    def finished(self, call: Call) -> None:
        sequence = call.sequence
        tokens = self._tokens.get(sequence)
        if tokens is None:
            return
        del tokens[sequence.position :]  # what was not taken in, or taken back
        if sequence.broken or len(tokens) != sequence.position:
            del self._tokens[sequence]  # others were taken in too, or too many
        elif self._engine is not None and not self.is_under_way:
            with suppress(Draining):
                copy = self._engine.copied(sequence)
                self.is_under_way = True
                copy.add_done_callback(lambda copy: self._begin(sequence, copy.result(), tokens))

    def _begin(self, sequence: Sequence, copy: Sequence, tokens: array[int]) -> None:
        """A call that has begun since has left its tokens too; if the sequence was discarded, its state is gone."""
        assert self._engine is not None
        if sequence.kept:
            self._worker.submit(self._audit, tokens[: copy.folded], self._engine.pool.tensors(copy.spilled))
        else:
            self.is_under_way = False

    # The audit's thread

    def _audit(self, tokens: array[int], served: State) -> None:
        try:
            self._compare(tokens, served)
        except Exception:
            log.exception("an audit failed")
        finally:
            self.is_under_way = False

    @torch.inference_mode()
    def _compare(self, tokens: array[int], served: State) -> None:
        torch.set_num_threads(1)
        difference = largest = 0.0
        for name, computed in self._computed(tokens).items():
            a, b = served[name].double(), computed[0].double().cpu()
            apart = torch.where(a == b, 0.0, (a - b).abs())  # both may be infinite
            difference = max(difference, _largest(apart))
            largest = max(largest, _largest(b[b.isfinite()]))
        self._report(len(tokens), difference, largest)

    def _computed(self, tokens: array[int]) -> State:
        device = next(self._model.parameters()).device
        state = self._model.initial_state(1)
        for start in range(0, len(tokens), _PIECE):
            piece = torch.tensor(tokens[start : start + _PIECE], device=device)
            state = self._model.fold(piece[None], state)
        return state


def chosen(name: str, fraction: float) -> bool:
    """Whether a session of that name is among the given fraction."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
