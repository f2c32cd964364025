"""What calls take and give: plain frozen values, free of protobuf."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

# Text; token ids (a sequence of ints, or a 1-D integer array); or vectors of numbers (a 2-D float array (L, d_input)).
SequenceLike: TypeAlias = str | Sequence[int] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.floating[Any]]


# Of the numbers in an exported state.
StateDtype: TypeAlias = Literal["float32", "bfloat16", "float16"]


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class Task(StrEnum):
    """What a model does."""

    UNSPECIFIED = "unspecified"
    GENERATE = "generate"
    CLASSIFY = "classify"
    PREDICT = "predict"
    FILL = "fill"


class InputKind(StrEnum):
    """What a model reads: text and token ids, or vectors of numbers."""

    UNSPECIFIED = "unspecified"
    TOKENS = "tokens"
    VALUES = "values"


class Tier(StrEnum):
    """Where a session's state lies."""

    UNSPECIFIED = "unspecified"
    DEVICE = "device"
    HOST = "host"
    STORE = "store"


class ServingStatus(StrEnum):
    """What a health check answers."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


class ChatMessage(TypedDict):
    """Of a conversation. The role is system, developer, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn; what is None takes the server's default."""

    # Divides the logits; 0 is greedy. 0 to 100, default 1.
    temperature: float | None = None
    # Smallest set of tokens with this much probability. (0, 1], default 1.
    top_p: float | None = None
    # The k most likely tokens. Default 0: all.
    top_k: int | None = None
    # Drop tokens less likely than this fraction of the most likely one. [0, 1], default 0.
    min_p: float | None = None
    # (0, 10], default 1: off. The window of the penalties is the last 1,024 tokens.
    repetition_penalty: float | None = None
    # [-2, 2], default 0.
    presence_penalty: float | None = None
    # [-2, 2], default 0.
    frequency_penalty: float | None = None
    # Default 128; the model's `limits.max_tokens` at most.
    max_tokens: int | None = None
    # No stop condition holds before this many tokens. Default 0.
    min_tokens: int | None = None
    # Texts that end the stream; at most 16, of 1 to 256 characters.
    stop: Sequence[str] = ()
    # Tokens that end the stream.
    stop_token_ids: Sequence[int] = ()
    # Go on past the end-of-text tokens. Default false.
    ignore_eos: bool | None = None
    # Fixes the draws.
    seed: int | None = None
    # Token id -> added to its logit, in [-100, 100]; at most 1,024 entries.
    logit_bias: Mapping[int, float] | None = None
    # Completions of one prompt, 1 to 16. Default 1.
    n: int | None = None
    # Leave the session as it was before what ended the stream; the next call must then bring input. Default false.
    exclude_stop: bool | None = None


class SamplingOptions(TypedDict, total=False):
    """The fields of `SamplingParams` as keyword arguments."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    max_tokens: int | None
    min_tokens: int | None
    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool | None
    seed: int | None
    logit_bias: Mapping[int, float] | None
    n: int | None
    exclude_stop: bool | None


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How tokens are put together into chunks; what is None takes the server's default."""

    # A chunk goes when this many tokens wait. 1 to 1,024, default 8.
    max_chunk_tokens: int | None = None
    # A chunk goes when its oldest token is this old, in milliseconds. Default 20, or 2 for each stream that the server
    # has if that is more; the first token goes at once.
    max_chunk_delay_ms: int | None = None
    # Tokens that the server may compute and this client has not received. 1 to 32, default 32.
    max_ahead: int | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens counted for one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    # Tokens a kept state already held, so that they were not computed again.
    cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class SessionStatus:
    """Where a session stands."""

    session_id: str
    # Tokens taken in or generated so far.
    position: int
    # What a restart of the server would not lose; without a store, what finished calls have brought.
    committed_position: int
    # Grows by one with every finished call that changed it.
    version: int


@dataclass(frozen=True, kw_only=True)
class Score:
    """How likely a model finds tokens, each after those before it."""

    token_ids: tuple[int, ...]
    # Natural logarithms of their probabilities.
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """Of all of them together."""
        return math.fsum(self.logprobs)


@dataclass(frozen=True, kw_only=True)
class TopLogprobs:
    """The likeliest next tokens, the likeliest first."""

    token_ids: tuple[int, ...]
    # Natural logarithms of their probabilities.
    logprobs: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SessionCheckpoint:
    """A state that a session had, and can be rewound to."""

    name: str
    # Tokens that it had taken in or generated.
    position: int


@dataclass(frozen=True, kw_only=True)
class StateHealth:
    """How large the numbers of a state are."""

    # False if the state holds NaN or infinite values, or was lost: calls on the session are refused until it is rewound
    # to a checkpoint, and the numbers here are 0.
    sound: bool
    # Euclidean, of all floating numbers.
    norm: float
    # The largest magnitude, and the tensor that has it.
    largest: float
    largest_in: str


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What the server knows of one session. Times are in UTC."""

    status: SessionStatus
    model: str
    create_time: datetime | None
    last_used_time: datetime | None
    tier: Tier
    # Bytes of its state, whatever its position.
    state_bytes: int
    # A call on it is under way.
    busy: bool
    # Where it can be rewound to.
    checkpoints: tuple[SessionCheckpoint, ...] = ()
    # Seconds after which it is closed if nobody uses it; None is never.
    ttl: float | None = None
    # If asked for; None too for a session whose state lies in the server's store only.
    health: StateHealth | None = None

    @property
    def session_id(self) -> str:
        """`<routing_key>.<secret>`."""
        return self.status.session_id

    @property
    def position(self) -> int:
        """Tokens taken in or generated so far."""
        return self.status.position


@dataclass(frozen=True, kw_only=True)
class GenerateChunk:
    """A piece of a stream: some tokens and the text they complete."""

    token_ids: tuple[int, ...]
    text: str
    # Which of the `n` completions it continues.
    index: int = 0
    # Set in the last chunk of each completion, as is `usage`.
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    # Set when the call is on a session.
    session: SessionStatus | None = None
    request_id: str = ""
    # Set in the last chunk if it was asked for: where to go on from.
    state: bytes | None = None
    # How many of the call's first tokens are not its own: the session's last call was cut after computing them.
    carried_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A classified sequence."""

    # The most likely class.
    label: str
    # All classes, in the order of `probabilities` and `logits`.
    labels: tuple[str, ...]
    # Softmax over the classes; sums to 1.
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]
    # Tokens (or vectors) in the sequence.
    num_tokens: int

    @property
    def probability(self) -> float:
        """Of the most likely class."""
        return max(self.probabilities)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A token that may stand at a masked place."""

    token_id: int
    # What it reads as; empty for a token that is no text.
    text: str
    # Natural logarithm of its probability.
    logprob: float


@dataclass(frozen=True, kw_only=True)
class FilledPlace:
    """What a model says of a masked place."""

    # Counted in tokens, from 0.
    position: int
    # The likeliest first.
    candidates: tuple[Candidate, ...]
    # The token that stood there; None where the sequence came with a mask.
    given: Candidate | None


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What a model says of the masked places of a sequence, in their order."""

    places: tuple[FilledPlace, ...]
    # Tokens in the sequence.
    num_tokens: int

    @property
    def total(self) -> float:
        """Log-probabilities of the given tokens together: their pseudo-log-likelihood, if they were masked one at a
        time."""
        return math.fsum(place.given.logprob for place in self.places if place.given)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for."""

    max_tokens: int
    # Longest input, in tokens or vectors.
    max_input_tokens: int
    # Most sequences in one Classify or Fill call.
    max_batch_sequences: int
    # Largest message, in bytes.
    max_message_bytes: int
    # Largest file that can be imported as a session, in bytes; 0 for a model without sessions.
    max_snapshot_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model the server has."""

    name: str
    description: str
    task: Task
    input_kind: InputKind
    # Layer kinds in words, for example "6 x mamba(s6)".
    architecture: str
    # "recurrent" or "bidirectional".
    form: str
    num_parameters: int
    num_layers: int
    d_model: int
    # Token ids are below this; 0 for numerical models.
    vocab_size: int
    # Numbers per input vector; 0 for models over tokens.
    d_input: int
    # Numbers per output vector of a model that predicts; 0 for others.
    d_output: int
    # Class names of a classifier.
    labels: tuple[str, ...]
    # Bytes of one session's state, at any position; 0 for a bidirectional model.
    state_bytes_per_session: int
    dtype: str
    # SHA-256 over configuration and weights, in hexadecimal.
    fingerprint: str
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class ModelLoad:
    """How busy one model is."""

    model: str
    # Sequences that are being generated.
    running: int
    # Calls that wait or fold their prompt; of a classifier, sequences not yet classified.
    waiting: int
    # States in the state pool, and how many it can hold; 0 for a classifier.
    slots_used: int
    slots_total: int
    # Open sessions, and bytes of their states and checkpoints.
    sessions: int
    state_bytes: int
    # Generated (of a classifier: read), over the last seconds.
    tokens_per_second: float
    # How long calls waited before they were computed, lately: mean.
    queue_seconds: float


@dataclass(frozen=True, kw_only=True)
class ServerLoad:
    """How busy a server is."""

    models: tuple[ModelLoad, ...]
    # Under way, those of administrators not counted.
    calls: int
    # It refuses new work.
    draining: bool
