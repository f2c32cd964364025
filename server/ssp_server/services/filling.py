"""`ssp.v1.Filling`."""

import asyncio
import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from ssp.v1 import common_pb2, filling_pb2
from ssp_runtime.engine.batch_runner import BatchRunner
from ssp_runtime.engine.masking import Masked, masked
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions.checks import check_request_id
from ssp_runtime.tokenizers import Tokenizer
from ssp_server.registry import Registry
from ssp_server.services.rows import read_row, sequence

DEFAULT_TOP, MAX_TOP = 5, 32
MAX_PLACES = 4096  # of one call; so many answers are made in a few milliseconds


@dataclass(frozen=True, kw_only=True)
class FillingService:
    registry: Registry

    async def Fill(self, request: filling_pb2.FillRequest) -> filling_pb2.FillResponse:
        check_request_id(request.request_id)
        model = self.registry.filler(request.model)
        tokenizer, mask_id = _vocabulary(model)
        speller = Speller(tokenizer, _top(request, model))
        sequences = _sequences(request, model, mask_id)
        readings = [reading for one in sequences for reading in one.readings]
        rows, places = [reading.ids for reading in readings], [reading.places for reading in readings]
        logits = await asyncio.wrap_future(model.submit(rows, places))
        of_next = iter(logits)
        return filling_pb2.FillResponse(
            request_id=request.request_id or secrets.token_hex(8),
            sequences=[one.filled(list(islice(of_next, len(one.readings))), speller) for one in sequences],
            usage=common_pb2.Usage(prompt_tokens=sum(map(len, rows))),
        )


class Speller:
    """Log-probabilities of all tokens to those that are told."""

    def __init__(self, tokenizer: Tokenizer, top: int) -> None:
        self._top = top
        self._text = cache(lambda token: tokenizer.decode([token]))

    def candidate(self, token: int, logprobs: np.ndarray) -> filling_pb2.Candidate:
        return filling_pb2.Candidate(token_id=token, text=self._text(token), logprob=logprobs[token])

    def likeliest(self, logprobs: np.ndarray) -> list[filling_pb2.Candidate]:
        return [self.candidate(int(token), logprobs) for token in np.argsort(-logprobs, kind="stable")[: self._top]]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A sequence as it was given, and how it is read."""

    ids: Sequence[int]
    mask_id: int
    readings: Sequence[Masked]

    def filled(self, logits: Sequence[np.ndarray], speller: Speller) -> filling_pb2.FilledSequence:
        """Of logits (places, V) for each reading."""
        places = [
            self._place(place, _log_softmax(of_place), speller)
            for reading, of_reading in zip(self.readings, logits, strict=True)
            for place, of_place in zip(reading.places, of_reading, strict=True)
        ]
        places.sort(key=lambda place: place.position)
        return filling_pb2.FilledSequence(places=places, num_tokens=len(self.ids))

    def _place(self, place: int, logprobs: np.ndarray, speller: Speller) -> filling_pb2.FilledPlace:
        given = self.ids[place]
        return filling_pb2.FilledPlace(
            position=place,
            candidates=speller.likeliest(logprobs),
            given=None if given == self.mask_id else speller.candidate(given, logprobs),
        )


def _sequences(request: filling_pb2.FillRequest, model: BatchRunner, mask_id: int) -> list[Query]:
    """Raises `InvalidRequest` if one is wrong, or all together are too much."""
    found, room = [], Room(model.config.max_input_tokens if request.separately else math.inf)
    for number, message in enumerate(request.sequences):
        with sequence(number):
            ids = [int(token) for token in read_row(message.input, model)]
            readings = masked(ids, message.positions, mask_id, separately=request.separately)
            found.append(Query(ids=ids, mask_id=mask_id, readings=list(room.taken(readings))))
    return found


class Room:
    """What one call may still ask for."""

    def __init__(self, tokens: float) -> None:
        self._max_tokens = self._tokens = tokens
        self._places = MAX_PLACES

    def taken(self, readings: Iterator[Masked]) -> Iterator[Masked]:
        """The readings, one by one, as long as there is room. Raises `InvalidRequest`."""
        for reading in readings:
            self._places -= len(reading.places)
            self._tokens -= len(reading.ids)
            if self._places < 0:
                raise InvalidRequest(f"with it more than {MAX_PLACES} places are masked; make several calls")
            if self._tokens < 0:
                raise InvalidRequest(f"with it more than {self._max_tokens} tokens are to be read; make several calls")
            yield reading


def _vocabulary(model: BatchRunner) -> tuple[Tokenizer, int]:
    """With its mask. Raises `InvalidRequest`."""
    tokenizer = model.artifact.description.tokenizer
    if tokenizer is None or tokenizer.mask_id is None:
        raise InvalidRequest(
            f"the vocabulary of model {model.name!r} has no mask;"
            " give the model one that has, with ssp-model convert --tokenizer"
        )
    return tokenizer, tokenizer.mask_id


def _top(request: filling_pb2.FillRequest, model: BatchRunner) -> int:
    most = min(MAX_TOP, model.artifact.masked_language_model.lm_head.out_features)
    top = request.top if request.HasField("top") else min(DEFAULT_TOP, most)
    if top > most:
        raise InvalidRequest(f"top must be in [0, {most}], not {top}")
    return top


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
