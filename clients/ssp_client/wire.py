"""Between the values of `ssp_client.types` and the messages of `ssp.v1`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from ssp.v1 import admin_pb2, classification_pb2, common_pb2, generation_pb2, models_pb2, sessions_pb2
from ssp_client.errors import InvalidSequence
from ssp_client.types import (
    ChatMessage,
    FinishReason,
    GenerateChunk,
    InputKind,
    Limits,
    ModelInfo,
    ModelLoad,
    Prediction,
    SamplingParams,
    Score,
    SequenceLike,
    ServerLoad,
    SessionCheckpoint,
    SessionInfo,
    SessionStatus,
    StateDtype,
    StateHealth,
    StreamOptions,
    Task,
    Tier,
    TopLogprobs,
    Usage,
)

_MAX_ID = 2**32 - 1
_LARGEST = {"top_k": 2**32 - 1, "max_tokens": 2**32 - 1, "min_tokens": 2**32 - 1, "n": 2**32 - 1, "seed": 2**64 - 1}
_FINISH_REASONS = {
    common_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    common_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    common_pb2.FINISH_REASON_ABORT: FinishReason.ABORT,
    common_pb2.FINISH_REASON_ERROR: FinishReason.ERROR,
}
_TASKS = {
    models_pb2.TASK_GENERATE: Task.GENERATE,
    models_pb2.TASK_CLASSIFY: Task.CLASSIFY,
    models_pb2.TASK_PREDICT: Task.PREDICT,
    models_pb2.TASK_FILL: Task.FILL,
}
_INPUT_KINDS = {models_pb2.INPUT_KIND_TOKENS: InputKind.TOKENS, models_pb2.INPUT_KIND_VALUES: InputKind.VALUES}
_DTYPES: dict[StateDtype | None, sessions_pb2.StateDtype.ValueType] = {
    None: sessions_pb2.STATE_DTYPE_UNSPECIFIED,
    "float32": sessions_pb2.STATE_DTYPE_FLOAT32,
    "bfloat16": sessions_pb2.STATE_DTYPE_BFLOAT16,
    "float16": sessions_pb2.STATE_DTYPE_FLOAT16,
}
_TIERS = {
    sessions_pb2.TIER_DEVICE: Tier.DEVICE,
    sessions_pb2.TIER_HOST: Tier.HOST,
    sessions_pb2.TIER_STORE: Tier.STORE,
}


def sequence_to_proto(sequence: SequenceLike) -> common_pb2.SequenceInput:
    """Text, token ids, or vectors of numbers (L, d_input) as little-endian float32.

    Raises:
        ValueError: text that UTF-8 cannot hold, an id outside [0, 2**32), or an array of another shape.
        TypeError: neither text nor numbers.
    """
    if isinstance(sequence, str):
        return common_pb2.SequenceInput(text=_utf8(sequence))
    if isinstance(sequence, bytes | bytearray):
        raise TypeError(
            "a sequence is text, token ids or vectors, not bytes; decode it, or pass list(data) as token ids"
        )
    array = np.asarray(sequence)
    if array.ndim == 2 and array.dtype.kind == "f":
        return common_pb2.SequenceInput(values=_packed(array))
    if array.ndim == 1 and (array.dtype.kind in "iu" or array.size == 0):
        return common_pb2.SequenceInput(input_ids=common_pb2.TokenIds(ids=_ids(array)))
    raise _unreadable(array)


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is half a surrogate pair; UTF-8 cannot hold it"
        ) from error
    return text


def _ids(array: npt.NDArray[Any]) -> list[int]:
    wrong = array[(array < 0) | (array > _MAX_ID)] if array.size else array
    if wrong.size:
        raise ValueError(f"{wrong[0]} is no token id; ids lie in [0, vocab_size)")
    return [int(token) for token in array.tolist()]


def _packed(array: npt.NDArray[Any]) -> common_pb2.PackedFloats:
    return common_pb2.PackedFloats(data=np.ascontiguousarray(array, "<f4").tobytes(), width=array.shape[1])


def _unreadable(array: npt.NDArray[Any]) -> ValueError | TypeError:
    if array.dtype.kind not in "iuf":
        return TypeError(f"a sequence is text, integers or floats, not {array.dtype}")
    return ValueError(
        f"a sequence of {array.dtype} of shape {array.shape} cannot be sent; "
        "token ids are 1-D integers, vectors are 2-D floats (L, d_input)"
    )


def sampling_to_proto(params: SamplingParams) -> common_pb2.SamplingParams:
    """Fields that are None stay absent.

    Raises:
        ValueError: a count is negative or does not fit its field; every other range is the server's to check.
    """
    _check_counts(params)
    return common_pb2.SamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        max_tokens=params.max_tokens,
        min_tokens=params.min_tokens,
        stop=[params.stop] if isinstance(params.stop, str) else params.stop,
        stop_token_ids=params.stop_token_ids,
        ignore_eos=params.ignore_eos,
        seed=params.seed,
        logit_bias=params.logit_bias or {},
        n=params.n,
        exclude_stop=params.exclude_stop,
    )


def _check_counts(params: SamplingParams) -> None:
    for name, largest in _LARGEST.items():
        value = getattr(params, name)
        if value is not None and not 0 <= value <= largest:
            raise ValueError(f"{name}={value} is out of range; it lies between 0 and {largest}")


def chat_to_proto(messages: Sequence[ChatMessage]) -> generation_pb2.Chat:
    """Raises `ValueError` for text that UTF-8 cannot hold."""
    made = [
        generation_pb2.ChatMessage(role=_utf8(message["role"]), content=_utf8(message["content"]))
        for message in messages
    ]
    return generation_pb2.Chat(messages=made)


def stream_options_to_proto(options: StreamOptions) -> generation_pb2.StreamOptions:
    """Fields that are None stay absent."""
    return generation_pb2.StreamOptions(
        max_chunk_tokens=options.max_chunk_tokens,
        max_chunk_delay_ms=options.max_chunk_delay_ms,
        max_ahead=options.max_ahead,
    )


def usage_from_proto(message: common_pb2.Usage) -> Usage:
    """Token counts."""
    return Usage(
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        cached_tokens=message.cached_tokens,
    )


def status_from_proto(message: common_pb2.SessionStatus) -> SessionStatus:
    """Where a session stands."""
    return SessionStatus(
        session_id=message.session_id,
        position=message.position,
        committed_position=message.committed_position,
        version=message.version,
    )


def chunk_from_proto(message: generation_pb2.GenerateResponse) -> GenerateChunk:
    """One message of a Generate stream."""
    return GenerateChunk(
        token_ids=tuple(message.token_ids),
        text=message.text,
        index=message.index,
        finish_reason=_FINISH_REASONS.get(message.finish_reason),
        usage=usage_from_proto(message.usage) if message.HasField("usage") else None,
        session=status_from_proto(message.session) if message.HasField("session") else None,
        request_id=message.request_id,
        state=message.state or None,
        carried_tokens=message.carried_tokens,
    )


def outcomes_from_proto(message: classification_pb2.ClassifyManyResponse) -> dict[int, Prediction | InvalidSequence]:
    """What became of sequences, by number."""
    labels = tuple(message.labels)
    return {
        result.index: _prediction(result.prediction, labels)
        if result.HasField("prediction")
        else InvalidSequence(result.error, index=result.index, code=StatusCode.INVALID_ARGUMENT)
        for result in message.results
    }


def _prediction(message: classification_pb2.Prediction, labels: tuple[str, ...]) -> Prediction:
    return Prediction(
        label=message.label,
        labels=labels,
        probabilities=tuple(message.probabilities),
        logits=tuple(message.logits),
        num_tokens=message.num_tokens,
    )


def scores_from_proto(messages: Iterable[common_pb2.Score]) -> tuple[Score, ...]:
    """In the order of what was asked for."""
    return tuple(Score(token_ids=tuple(each.token_ids), logprobs=tuple(each.logprobs)) for each in messages)


@dataclass(frozen=True, kw_only=True)
class StepPart:
    """One message of a Step call: part of the answer to an input, or the last."""

    status: SessionStatus
    outputs: npt.NDArray[np.float32]
    top: tuple[TopLogprobs, ...]
    # Rows of the same answer that are to come.
    num_left: int

    @property
    def is_last(self) -> bool:
        """Whether it only tells where the session stands."""
        return not (len(self.outputs) or self.top)


def step_part_from_proto(message: sessions_pb2.StepResponse) -> StepPart:
    """Outputs as rows; none of them is (0, 1)."""
    width = message.outputs.width or 1
    return StepPart(
        status=status_from_proto(message.session),
        outputs=np.frombuffer(message.outputs.data, "<f4").reshape(-1, width).astype(np.float32),
        top=tuple(TopLogprobs(token_ids=tuple(each.token_ids), logprobs=tuple(each.logprobs)) for each in message.top),
        num_left=message.num_left,
    )


def session_from_proto(message: sessions_pb2.Session) -> SessionInfo:
    """What the server knows of a session."""
    return SessionInfo(
        status=status_from_proto(message.status),
        model=message.model,
        create_time=_datetime(message.create_time) if message.HasField("create_time") else None,
        last_used_time=_datetime(message.last_used_time) if message.HasField("last_used_time") else None,
        tier=_TIERS.get(message.tier, Tier.UNSPECIFIED),
        state_bytes=message.state_bytes,
        busy=message.busy,
        checkpoints=tuple(SessionCheckpoint(name=kept.name, position=kept.position) for kept in message.checkpoints),
        ttl=message.ttl.ToTimedelta().total_seconds() if message.HasField("ttl") else None,
        health=_health(message.health) if message.HasField("health") else None,
    )


def _health(message: sessions_pb2.StateHealth) -> StateHealth:
    return StateHealth(sound=message.sound, norm=message.norm, largest=message.largest, largest_in=message.largest_in)


def duration_to_proto(seconds: float) -> Duration:
    """A length of time."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def dtype_to_proto(dtype: StateDtype | None) -> sessions_pb2.StateDtype.ValueType:
    """Raises `ValueError` for one that there is not."""
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r} is none of {', '.join(filter(None, _DTYPES))}, or None")
    return _DTYPES[dtype]


def _datetime(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC)


def model_from_proto(message: models_pb2.Model) -> ModelInfo:
    """A model and its limits."""
    return ModelInfo(
        name=message.name,
        description=message.description,
        task=_TASKS.get(message.task, Task.UNSPECIFIED),
        input_kind=_INPUT_KINDS.get(message.input_kind, InputKind.UNSPECIFIED),
        architecture=message.architecture,
        form=message.form,
        num_parameters=message.num_parameters,
        num_layers=message.num_layers,
        d_model=message.d_model,
        vocab_size=message.vocab_size,
        d_input=message.d_input,
        d_output=message.d_output,
        labels=tuple(message.labels),
        state_bytes_per_session=message.state_bytes_per_session,
        dtype=message.dtype,
        fingerprint=message.fingerprint,
        limits=_limits(message.limits),
    )


def load_from_proto(message: admin_pb2.GetLoadsResponse) -> ServerLoad:
    """How busy a server is."""
    return ServerLoad(models=tuple(map(_model_load, message.models)), calls=message.calls, draining=message.draining)


def _model_load(message: admin_pb2.ModelLoad) -> ModelLoad:
    return ModelLoad(**{field.name: getattr(message, field.name) for field in fields(ModelLoad)})


def _limits(message: models_pb2.Limits) -> Limits:
    return Limits(
        max_tokens=message.max_tokens,
        max_input_tokens=message.max_input_tokens,
        max_batch_sequences=message.max_batch_sequences,
        max_message_bytes=message.max_message_bytes,
        max_snapshot_bytes=message.max_snapshot_bytes,
    )
