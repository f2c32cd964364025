"""What may be asked of the sampler."""

import math
from typing import Any

import pytest

from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.errors import InvalidRequest

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"temperature": 0.0, "top_p": 1.0, "min_p": 1.0, "top_k": 2**31, "seed": 2**64 - 1, "n": 16},
        {"temperature": 100.0, "top_p": 1e-9, "min_p": 0.0, "repetition_penalty": 10.0},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0, "max_tokens": 1000, "min_tokens": 1000},
        {"stop": ("x" * 256,) * 16, "stop_token_ids": frozenset({0, 255}), "logit_bias": {0: -100.0, 255: 100.0}},
    ],
    ids=lambda given: ",".join(given) or "defaults",
)
def test_accepted(given: dict[str, Any]) -> None:
    SamplingParams(**given).check(vocab_size=256, max_tokens=1000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(({"temperature": value}, r"temperature must be in \[0, 100\]") for value in (-0.1, 100.1, NAN, INF)),
        *(({"top_p": value}, r"top_p must be in \(0, 1\]") for value in (0.0, -1.0, 1.01, NAN)),
        *(({"min_p": value}, r"min_p must be in \[0, 1\]") for value in (-0.01, 1.01, NAN)),
        *(({"top_k": value}, "top_k must be in") for value in (-1, 2**31 + 1)),
        *(({"repetition_penalty": value}, r"repetition_penalty must be in \(0, 10\]") for value in (0.0, 10.1, NAN)),
        *(({"presence_penalty": value}, "presence_penalty must be in") for value in (-2.1, 2.1, NAN)),
        *(({"frequency_penalty": value}, "frequency_penalty must be in") for value in (-2.1, 2.1, NAN)),
        *(({"max_tokens": value}, r"max_tokens must be in \[1, 1000\]") for value in (-1, 0, 1001)),
        *(({"min_tokens": value, "max_tokens": 5}, r"min_tokens must be in \[0, 5\]") for value in (-1, 6)),
        *(({"n": value}, r"n must be in \[1, 16\]") for value in (0, 17)),
        ({"stop": ("a",) * 17}, "number of stop texts"),
        ({"stop": ("",)}, "length of a stop text"),
        ({"stop": ("x" * 257,)}, "length of a stop text"),
        ({"logit_bias": dict.fromkeys(range(1025), 0.0)}, "number of logit_bias entries"),
        *(({"logit_bias": {1: value}}, r"logit_bias must be in \[-100, 100\]") for value in (-101.0, NAN, INF)),
        ({"logit_bias": {256: 1.0}}, "token id 256 is outside the vocabulary: ids are 0 to 255"),
        ({"stop_token_ids": frozenset({-1})}, "token id -1 is outside"),
    ],
    ids=str,
)
def test_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        SamplingParams(**given).check(vocab_size=256, max_tokens=1000)
