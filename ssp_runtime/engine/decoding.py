"""From a step's outputs to the next token of each call that generates, and what tokens mean for their call."""

from collections.abc import Sequence as Ids

from torch import Tensor

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.sampling import Draw, Sampler, sample


class Decoder:
    """Keeps what is worked out for a batch for as long as it stays the same, as it does for most steps."""

    def __init__(self) -> None:
        self._calls: Ids[Call] = ()
        self._sampler = Sampler(())

    def next_tokens(self, calls: Ids[Call], outputs_RV: Tensor) -> Ids[int | None]:
        """The next token of each call, one a row; None for those that do not generate yet."""
        if calls != self._calls:
            if not all(map(_only_draws, calls)):
                return _next_tokens(calls, outputs_RV)
            self._calls, self._sampler = calls, Sampler([call.params for call in calls if call.params is not None])
        return self._sampler(outputs_RV, [call.sequence.position for call in calls])


def _only_draws(call: Call) -> bool:
    """From now to its end, by its parameters alone."""
    return call.generates and not call.forced and call.params is not None and not call.params.changes_logits


def _next_tokens(calls: Ids[Call], outputs_RV: Tensor) -> list[int | None]:
    rows = [row for row, call in enumerate(calls) if call.generates]
    tokens: list[int | None] = [None] * len(calls)
    if not rows:
        return tokens
    chosen_RV = outputs_RV if len(rows) == len(calls) else outputs_RV[rows]
    for row, token in zip(rows, sample(chosen_RV, [_draw(calls[row]) for row in rows]), strict=True):
        forced = calls[row].forced
        tokens[row] = forced.popleft() if forced else token
    return tokens


def collected(call: Call) -> Progress:
    """The tokens that a call has generated since the last time, and their text; with a finish reason if the last of
    them ends it."""
    sequence, params, text, ids = call.sequence, call.params, call.text, tuple(call.fresh)
    assert params is not None
    call.fresh.clear()
    sequence.recent.extend([(token, True) for token in ids])
    ended, reason = ids[-1] in call.end_ids, None
    shown = text.push(ids[:-1] if ended else ids)
    if call.backtrack is not None:
        call.backtrack.heard(text.num_shown)
    if ended or text.stopped:
        reason = FinishReason.STOP
    elif call.num_generated >= params.max_tokens:
        reason = FinishReason.LENGTH
    if reason is not None and not text.stopped:
        shown += text.flush(final=not sequence.kept)
    return Progress(sequence.position, ids, shown, finish_reason=reason)


def gather(call: Call) -> None:
    """What a call has generated is for its reader, now or when it is told; nothing of it ends the call."""
    if call.fresh:
        call.put(collected(call))


def _draw(call: Call) -> Draw:
    sequence, params = call.sequence, call.params
    assert params is not None
    if not params.changes_logits:
        return Draw(params, sequence.position)
    recent = [token for token, _ in sequence.recent]
    generated = [token for token, made in sequence.recent if made]
    forbidden = () if call.num_generated >= params.min_tokens else tuple(call.end_ids)
    return Draw(params, sequence.position, recent, generated, forbidden)
