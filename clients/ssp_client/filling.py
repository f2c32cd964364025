"""The call of `Client.fill`."""

from __future__ import annotations

from collections.abc import Sequence

from ssp.v1 import filling_pb2
from ssp_client import wire
from ssp_client.batching import check_collection
from ssp_client.calls import Call, make_call
from ssp_client.types import Candidate, FilledPlace, Filling, SequenceLike

_MAX_POSITION = 2**32 - 1


def fill(
    sequences: Sequence[SequenceLike],
    positions: Sequence[Sequence[int]] | None,
    *,
    model: str,
    top: int | None,
    separately: bool,
) -> Call[tuple[Filling, ...]]:
    """It changes nothing and may be retried.

    Raises:
        ValueError: there are not as many lists of positions as sequences, or one of a place that no sequence has.
        TypeError: one text where many sequences are wanted.
    """
    check_collection(sequences)
    if positions is None:
        positions = [()] * len(sequences)
    if len(positions) != len(sequences):
        raise ValueError(f"{len(positions)} lists of positions are given for {len(sequences)} sequences")
    masked = [_masked(sequence, places) for sequence, places in zip(sequences, positions, strict=True)]
    return make_call(
        "/ssp.v1.Filling/Fill",
        filling_pb2.FillRequest(model=model, sequences=masked, top=top, separately=separately),
        filling_pb2.FillResponse,
        lambda response: tuple(map(_filling, response.sequences)),
    )


def _masked(sequence: SequenceLike, positions: Sequence[int]) -> filling_pb2.MaskedSequence:
    if wrong := [place for place in positions if not 0 <= place <= _MAX_POSITION]:
        raise ValueError(f"position {wrong[0]} is none of a sequence; positions count tokens, from 0")
    return filling_pb2.MaskedSequence(input=wire.sequence_to_proto(sequence), positions=positions)


def _filling(message: filling_pb2.FilledSequence) -> Filling:
    return Filling(places=tuple(map(_place, message.places)), num_tokens=message.num_tokens)


def _place(message: filling_pb2.FilledPlace) -> FilledPlace:
    return FilledPlace(
        position=message.position,
        candidates=tuple(map(_candidate, message.candidates)),
        given=_candidate(message.given) if message.HasField("given") else None,
    )


def _candidate(message: filling_pb2.Candidate) -> Candidate:
    return Candidate(token_id=message.token_id, text=message.text, logprob=message.logprob)
