"""What the fake server says."""

from __future__ import annotations

from typing import Any

from ssp.v1 import classification_pb2, common_pb2, filling_pb2, generation_pb2

LABELS = ("even", "odd")


def expects(request: Any) -> bool:
    named = "expected_position" in request.DESCRIPTOR.fields_by_name
    return named and bool(request.HasField("expected_position"))


def length(sequence: common_pb2.SequenceInput) -> int:
    if sequence.WhichOneof("kind") == "values":
        return len(sequence.values.data) // 4 // sequence.values.width
    return len(sequence.text) or len(sequence.input_ids.ids)


def score(sequence: common_pb2.SequenceInput) -> common_pb2.Score:
    """Every letter has the probability 1/e."""
    return common_pb2.Score(token_ids=sequence.text.encode(), logprobs=[-1.0] * length(sequence))


def filled(sequence: filling_pb2.MaskedSequence, top: int) -> filling_pb2.FilledSequence:
    text = sequence.input.text.replace("[MASK]", "?")
    places = sorted({*sequence.positions, *(place for place, letter in enumerate(text) if letter == "?")})
    candidates = [filling_pb2.Candidate(token_id=ord(a), text=a, logprob=-1 - n) for n, a in enumerate("ACGT")]
    return filling_pb2.FilledSequence(
        places=[
            filling_pb2.FilledPlace(
                position=place,
                candidates=candidates[:top],
                given=None if text[place] == "?" else candidates["ACGT".index(text[place])],
            )
            for place in places
        ],
        num_tokens=len(text),
    )


def status(session_id: str, position: int) -> common_pb2.SessionStatus:
    return common_pb2.SessionStatus(
        session_id=session_id, position=position, committed_position=position, version=position + 1
    )


def message(
    request: generation_pb2.GenerateRequest, position: int, start: int, size: int, count: int
) -> generation_pb2.GenerateResponse:
    tokens = range(position + start, position + min(start + size, count))
    message = generation_pb2.GenerateResponse(
        request_id=request.request_id, token_ids=tokens, text="".join(f"{token} " for token in tokens)
    )
    if request.session_id:
        message.session.CopyFrom(status(request.session_id, tokens.stop))
    if start + size >= count:
        message.finish_reason = common_pb2.FINISH_REASON_LENGTH
        message.usage.CopyFrom(common_pb2.Usage(prompt_tokens=length(request.input), completion_tokens=count))
    return message


def merged(messages: list[generation_pb2.GenerateResponse]) -> list[generation_pb2.GenerateResponse]:
    """The same tokens in one message, as a server may put them together when it answers again."""
    whole = generation_pb2.GenerateResponse()
    for message in messages:
        whole.MergeFrom(message)
    whole.text = "".join(message.text for message in messages)
    return [whole]


def result(sequence: classification_pb2.IndexedSequence) -> classification_pb2.IndexedResult:
    wrong = set(sequence.input.text) - set("ACGT")
    if wrong:
        return classification_pb2.IndexedResult(
            index=sequence.index, error=f"the model does not know letter {min(wrong)!r}"
        )
    return classification_pb2.IndexedResult(index=sequence.index, prediction=prediction(length(sequence.input)))


def prediction(length: int) -> classification_pb2.Prediction:
    odd = length % 2
    return classification_pb2.Prediction(
        label=LABELS[odd], probabilities=[0.75, 0.25][:: 1 - 2 * odd], logits=[1.0, -1.0], num_tokens=length
    )
