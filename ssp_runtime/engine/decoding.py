"""From a step's outputs to the next token of each call that generates, and what a token means for its call."""

from collections.abc import Sequence as Ids

from torch import Tensor

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.sampling import Draw, sample


class Decoder:
    """Any of `eos_ids` ends a text."""

    def __init__(self, eos_ids: tuple[int, ...]) -> None:
        self._eos_ids = eos_ids

    def tokens(self, calls: Ids[Call], outputs_RV: Tensor) -> list[int | None]:
        """The next token of each call, one a row; None for those that do not generate yet."""
        rows = [row for row, call in enumerate(calls) if call.generates]
        if not rows:
            return [None] * len(calls)
        chosen_RV = outputs_RV if len(rows) == len(calls) else outputs_RV[rows]
        drawn = sample(chosen_RV, [self._draw(calls[row]) for row in rows])
        tokens: list[int | None] = [None] * len(calls)
        for row, token in zip(rows, drawn, strict=True):
            forced = calls[row].forced
            tokens[row] = forced.popleft() if forced else token
        return tokens

    def advance(self, call: Call, token: int) -> Progress:
        """Takes in a call's next token; the progress has a finish reason if it is the last."""
        sequence, params = call.sequence, call.params
        assert params is not None
        sequence.folded += 1
        sequence.pending = token
        sequence.recent.append((token, True))
        call.num_generated += 1
        ended, reason = self._ends(call, token), None
        text = "" if ended else call.text.push(token)
        if ended or call.text.stopped:
            reason = FinishReason.STOP
        elif call.num_generated >= params.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None and not call.text.stopped:
            text += call.text.flush(final=not sequence.kept)
        return Progress(position=sequence.position, token_ids=(token,), text=text, finish_reason=reason)

    def _draw(self, call: Call) -> Draw:
        sequence, params = call.sequence, call.params
        assert params is not None
        if not params.changes_logits:
            return Draw(params=params, position=sequence.position)
        recent = [token for token, _ in sequence.recent]
        generated = [token for token, made in sequence.recent if made]
        forbidden = () if call.num_generated >= params.min_tokens else self._end_ids(call)
        return Draw(
            params=params, position=sequence.position, recent=recent, recent_generated=generated, forbidden=forbidden
        )

    def _end_ids(self, call: Call) -> tuple[int, ...]:
        assert call.params is not None
        return (*call.params.stop_token_ids, *(() if call.params.ignore_eos else self._eos_ids))

    def _ends(self, call: Call, token: int) -> bool:
        params = call.params
        assert params is not None
        return token in params.stop_token_ids or (token in self._eos_ids and not params.ignore_eos)
