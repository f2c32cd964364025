"""How the next token is to be drawn, and the bounds of what may be asked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ssp_runtime.errors import InvalidRequest

MAX_STOPS, MAX_STOP_LENGTH, MAX_BIASES, MAX_COMPLETIONS = 16, 256, 1024, 16


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn; temperature 0 is greedy. Names and ranges as in the API."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = 128
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    exclude_stop: bool = False
    seed: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    n: int = 1

    @cached_property
    def greedy(self) -> bool:
        return self.temperature == 0

    @cached_property
    def filters(self) -> bool:
        """Whether unlikely tokens are left out."""
        return (self.top_p, self.top_k, self.min_p) != (1.0, 0, 0.0)

    @cached_property
    def changes_logits(self) -> bool:
        """Whether anything but the temperature and the filters is at work."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return bool(self.logit_bias) or penalties != (1.0, 0.0, 0.0) or self.min_tokens > 0

    def check(self, vocab_size: int, max_tokens: int) -> None:
        """Raises `InvalidRequest` that names the field and its range."""
        _in_range("temperature", self.temperature, 0, 100)
        _in_range("top_p", self.top_p, 0, 1, above=True)
        _in_range("min_p", self.min_p, 0, 1)
        _in_range("top_k", self.top_k, 0, 2**31)
        _in_range("repetition_penalty", self.repetition_penalty, 0, 10, above=True)
        _in_range("presence_penalty", self.presence_penalty, -2, 2)
        _in_range("frequency_penalty", self.frequency_penalty, -2, 2)
        _in_range("max_tokens", self.max_tokens, 1, max_tokens)
        _in_range("min_tokens", self.min_tokens, 0, self.max_tokens)
        _in_range("n", self.n, 1, MAX_COMPLETIONS)
        _in_range("the number of stop texts", len(self.stop), 0, MAX_STOPS)
        for stop in self.stop:
            _in_range("the length of a stop text", len(stop), 1, MAX_STOP_LENGTH)
        _in_range("the number of logit_bias entries", len(self.logit_bias), 0, MAX_BIASES)
        for value in self.logit_bias.values():
            _in_range("logit_bias", value, -100, 100)
        check_ids([*self.stop_token_ids, *self.logit_bias], vocab_size)


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raises `InvalidRequest` for a token id outside the vocabulary."""
    for token in ids:
        if not 0 <= token < vocab_size:
            raise InvalidRequest(f"token id {token} is outside the vocabulary: ids are 0 to {vocab_size - 1}")


def _in_range(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    if math.isnan(value) or not (low < value if above else low <= value) or value > high:
        bracket = "(" if above else "["
        raise InvalidRequest(f"{name} must be in {bracket}{low}, {high}], not {value}")
