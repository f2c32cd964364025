"""Between the runtime's values and the messages of `ssp.v1`."""

import secrets
from collections.abc import Sequence as Ids
from dataclasses import replace

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from ssp.v1 import common_pb2, generation_pb2, models_pb2, sessions_pb2
from ssp_runtime.engine.batch_runner import BatchRunner
from ssp_runtime.engine.call import Call, CallOptions, Input, ScoringCall
from ssp_runtime.engine.chunks import Chunking
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.progress import FinishReason, Progress, Receipt
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.models.config import NumberEmbeddingConfig, ValuesHeadConfig
from ssp_runtime.models.model import Classifier, LanguageModel, MaskedLanguageModel, Model, SequenceRegressor
from ssp_runtime.sessions import transfer
from ssp_runtime.sessions.census import tier
from ssp_runtime.sessions.health import Health
from ssp_runtime.sessions.session import Session
from ssp_runtime.tokenizers import Tokenizer
from ssp_server.caller import Caller

FINISH_REASONS = {
    FinishReason.STOP: common_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: common_pb2.FINISH_REASON_LENGTH,
    FinishReason.ABORT: common_pb2.FINISH_REASON_ABORT,
    FinishReason.ERROR: common_pb2.FINISH_REASON_ERROR,
}
TASKS: dict[type[Model], models_pb2.Task.ValueType] = {
    LanguageModel: models_pb2.TASK_GENERATE,
    SequenceRegressor: models_pb2.TASK_PREDICT,
    Classifier: models_pb2.TASK_CLASSIFY,
    MaskedLanguageModel: models_pb2.TASK_FILL,
}
_TIERS = {"device": sessions_pb2.TIER_DEVICE, "host": sessions_pb2.TIER_HOST, "store": sessions_pb2.TIER_STORE}
MAX_AHEAD = 32
MAX_SCORED = 1024
MAX_TTL = 10 * 365 * 86_400  # seconds
_PLAIN = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "max_tokens", "min_tokens", "ignore_eos", "exclude_stop", "n",
)  # fmt: skip


def sampling_params(message: common_pb2.SamplingParams) -> SamplingParams:
    """Absent fields take the runtime's defaults; an absent seed is drawn."""
    given = {name: getattr(message, name) for name in _PLAIN if message.HasField(name)}  # type: ignore[arg-type]  # names
    return SamplingParams(
        stop=tuple(message.stop),
        stop_token_ids=frozenset(message.stop_token_ids),
        logit_bias=dict(message.logit_bias),
        seed=message.seed if message.HasField("seed") else secrets.randbits(63),
        **given,
    )


def token_ids(message: common_pb2.SequenceInput, tokenizer: Tokenizer | None) -> list[int]:
    """The tokens of an input; none of an absent one. Raises `InvalidRequest` for numbers, or text without tokenizer."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return []
    if kind == "values":
        raise InvalidRequest("this model takes text or token ids, not numbers")
    if kind == "input_ids":
        return list(message.input_ids.ids)
    if tokenizer is None:
        raise InvalidRequest("this model takes numbers, not text")
    return tokenizer.encode(message.text)


def row(message: common_pb2.SequenceInput, tokenizer: Tokenizer | None) -> list[int] | np.ndarray:
    """One whole sequence: token ids, or numbers (L, width)."""
    if message.WhichOneof("kind") == "values":
        return numbers(message.values)
    return token_ids(message, tokenizer)


def inputs(message: common_pb2.SequenceInput, generator: Generator) -> list[Input]:
    """Tokens or vectors, whichever the model takes; none of an absent input. Raises `InvalidRequest`."""
    if generator.takes_numbers:
        return list(row(message, None))
    return [*token_ids(message, generator.tokenizer)]


def numbers(message: common_pb2.PackedFloats) -> np.ndarray:
    if message.width == 0 or len(message.data) % (4 * message.width):
        raise InvalidRequest(f"{len(message.data)} bytes are no whole number of vectors of {message.width} float32")
    return np.frombuffer(message.data, dtype="<f4").reshape(-1, message.width).astype(np.float32)


def several_token_ids(messages: Ids[common_pb2.SequenceInput], tokenizer: Tokenizer) -> list[list[int]]:
    """Raises `InvalidRequest` that says which is wrong."""
    if not 1 <= len(messages) <= MAX_SCORED:
        raise InvalidRequest(f"1 to {MAX_SCORED} inputs can be scored at once, not {len(messages)}")
    rows = []
    for number, message in enumerate(messages):
        try:
            rows.append(token_ids(message, tokenizer))
        except InvalidRequest as error:
            raise InvalidRequest(f"input {number}: {error}") from error
        if not rows[-1]:
            raise InvalidRequest(f"input {number} is empty; give at least one token")
    return rows


def score(call: ScoringCall, ids: Ids[int]) -> common_pb2.Score:
    """Of the tokens that were asked for."""
    return common_pb2.Score(token_ids=ids[len(ids) - len(call.scores) :], logprobs=call.scores)


def session_status(session: Session, position: int | None = None) -> common_pb2.SessionStatus:
    standing = session.standing
    return common_pb2.SessionStatus(
        session_id=session.id,
        position=standing.position if position is None else position,
        committed_position=session.committed_position,
        version=standing.version,
    )


def expected_position(
    request: generation_pb2.GenerateRequest
    | sessions_pb2.AppendRequest
    | sessions_pb2.StepRequest
    | sessions_pb2.ForkRequest
    | sessions_pb2.CheckpointRequest
    | sessions_pb2.RewindRequest
    | sessions_pb2.PeekRequest
    | sessions_pb2.ExportStateRequest,
) -> int | None:
    return request.expected_position if request.HasField("expected_position") else None


def call_options(request: generation_pb2.GenerateRequest | sessions_pb2.AppendRequest, who: Caller) -> CallOptions:
    options = CallOptions(
        request_id=request.request_id,
        priority=request.priority,
        owner=who.tenant,
        deadline=who.deadline,
        receipt=_receipt(request.receipt) if request.HasField("receipt") else None,
    )
    if isinstance(request, sessions_pb2.AppendRequest):
        return options
    ahead = request.stream_options.max_ahead if request.stream_options.HasField("max_ahead") else MAX_AHEAD
    if not 1 <= ahead <= MAX_AHEAD:
        raise InvalidRequest(f"max_ahead must be in [1, {MAX_AHEAD}], not {ahead}")
    return replace(
        options,
        max_ahead=ahead,
        chunking=_chunking(request.stream_options),
        received=tuple(request.received_ids),
    )


def _chunking(message: generation_pb2.StreamOptions) -> Chunking:
    tokens = message.max_chunk_tokens if message.HasField("max_chunk_tokens") else 8
    milliseconds = message.max_chunk_delay_ms if message.HasField("max_chunk_delay_ms") else 20
    if not 1 <= tokens <= 1024:
        raise InvalidRequest(f"max_chunk_tokens must be in [1, 1024], not {tokens}")
    if milliseconds > 60_000:
        raise InvalidRequest(f"max_chunk_delay_ms must be in [0, 60000], not {milliseconds}")
    elastic = not message.HasField("max_chunk_delay_ms")
    return Chunking(max_tokens=tokens, max_delay=milliseconds / 1000, elastic=elastic)


def _receipt(message: common_pb2.Receipt) -> Receipt:
    return Receipt(message.request_id, message.num_tokens, message.num_characters)


def ttl(request: sessions_pb2.OpenSessionRequest | sessions_pb2.ImportStateRequest) -> float | None:
    if not request.HasField("ttl"):
        return None
    seconds = request.ttl.seconds + request.ttl.nanos / 1e9
    if not 0 < seconds <= MAX_TTL:
        raise InvalidRequest(f"ttl must be above 0 and at most {MAX_TTL} seconds, or absent; not {seconds:g}")
    return seconds


def session_info(session: Session, generator: Generator) -> sessions_pb2.Session:
    message = sessions_pb2.Session(
        status=session_status(session),
        model=session.model,
        create_time=_timestamp(session.created),
        last_used_time=_timestamp(session.standing.last_used),
        tier=_TIERS[tier(session, generator)],
        state_bytes=generator.state_bytes,
        busy=session.is_busy,
        checkpoints=[
            sessions_pb2.SessionCheckpoint(name=name, position=kept.position)
            for name, kept in list(session.checkpoints.items())
        ],
    )
    if session.ttl is not None:
        message.ttl.FromNanoseconds(round(session.ttl * 1e9))
    return message


def state_health(found: Health | None) -> sessions_pb2.StateHealth:
    """None is a state that is not sound."""
    if found is None:
        return sessions_pb2.StateHealth(sound=False)
    return sessions_pb2.StateHealth(sound=True, norm=found.norm, largest=found.largest, largest_in=found.largest_in)


def usage(call: Call) -> common_pb2.Usage:
    completion = call.num_tokens if call.params is not None else 0
    return common_pb2.Usage(
        prompt_tokens=call.num_prompt_tokens, completion_tokens=completion, cached_tokens=call.cached_tokens
    )


def generate_response(
    call: Call, taken: Ids[Progress], *, index: int, session: Session | None
) -> generation_pb2.GenerateResponse:
    """One message for what several steps brought."""
    last = taken[-1]
    message = generation_pb2.GenerateResponse(
        request_id=call.options.request_id,
        index=index,
        token_ids=[token for progress in taken for token in progress.token_ids],
        text="".join(progress.text for progress in taken),
        carried_tokens=call.num_carried,
    )
    if last.finish_reason is not None:
        message.finish_reason = FINISH_REASONS[last.finish_reason]
        message.usage.CopyFrom(usage(call))
    if session is not None:
        message.session.CopyFrom(session_status(session, last.position))
    return message


def model_info(served: Generator | BatchRunner, max_message_bytes: int) -> models_pb2.Model:
    artifact = served.artifact
    description, config = artifact.description, artifact.description.model
    embedding = config.embedding
    numeric = isinstance(embedding, NumberEmbeddingConfig)
    generates = isinstance(served, Generator)
    return models_pb2.Model(
        name=served.name,
        description=description.description,
        task=TASKS[type(artifact.model)],
        input_kind=models_pb2.INPUT_KIND_VALUES if numeric else models_pb2.INPUT_KIND_TOKENS,
        architecture=config.architecture,
        form="recurrent" if generates else "parallel" if artifact.model.backbone.is_causal else "bidirectional",
        num_parameters=artifact.num_parameters,
        num_layers=len(config.layers),
        d_model=config.d_model,
        vocab_size=0 if isinstance(embedding, NumberEmbeddingConfig) else embedding.vocab_size,
        d_input=embedding.d_input if isinstance(embedding, NumberEmbeddingConfig) else 0,
        d_output=config.head.d_output if isinstance(config.head, ValuesHeadConfig) else 0,
        labels=description.labels,
        state_bytes_per_session=served.state_bytes if isinstance(served, Generator) else 0,
        dtype=str(next(artifact.model.parameters()).dtype).removeprefix("torch."),
        fingerprint=artifact.fingerprint,
        limits=_limits(served, max_message_bytes),
    )


def _limits(served: Generator | BatchRunner, max_message_bytes: int) -> models_pb2.Limits:
    if isinstance(served, Generator):
        return models_pb2.Limits(
            max_tokens=served.limits.max_tokens,
            max_input_tokens=served.limits.max_input_tokens,
            max_message_bytes=max_message_bytes,
            max_snapshot_bytes=transfer.max_bytes(served),
        )
    return models_pb2.Limits(
        max_input_tokens=served.config.max_input_tokens,
        max_batch_sequences=served.config.max_batch_sequences,
        max_message_bytes=max_message_bytes,
    )


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp
