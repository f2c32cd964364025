"""From a step's outputs to the next token of each call that generates, and what a token means for its call."""

from collections.abc import Sequence as Ids

from torch import Tensor

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.sampling import Draw, sample


class Decoder:
    """`eos_id` ends a text, if the model has such a token."""

    def __init__(self, eos_id: int | None) -> None:
        self._eos_id = eos_id

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
        eos = () if call.params.ignore_eos or self._eos_id is None else (self._eos_id,)
        return (*call.params.stop_token_ids, *eos)

    def _ends(self, call: Call, token: int) -> bool:
        params = call.params
        assert params is not None
        return token in params.stop_token_ids or (token == self._eos_id and not params.ignore_eos)
