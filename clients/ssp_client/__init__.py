"""Client of ssp servers: inference with recurrent sequence models.

    from ssp_client import Client

    with Client() as client:
        print(client.generate_text("Once upon a time", max_tokens=50))

`AsyncClient` is the same for asyncio. Needs grpcio, protobuf and numpy only.
"""

from ssp_client.aio import AsyncClient, AsyncGenerateStream, AsyncSession
from ssp_client.client import Client
from ssp_client.completion import Completion, collect_completions
from ssp_client.errors import (
    Aborted,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    InvalidSequence,
    ModelMismatch,
    NotFound,
    OutOfRange,
    PermissionDenied,
    PositionMismatch,
    ResourceExhausted,
    ServerUnreachable,
    SessionBusy,
    SessionExpired,
    SessionMoved,
    SSPError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from ssp_client.session import Session
from ssp_client.stream import GenerateStream
from ssp_client.types import (
    FinishReason,
    GenerateChunk,
    InputKind,
    Limits,
    ModelInfo,
    Prediction,
    SamplingParams,
    Score,
    SequenceLike,
    ServingStatus,
    SessionCheckpoint,
    SessionInfo,
    SessionStatus,
    StreamOptions,
    Task,
    Tier,
    Usage,
)

__all__ = [
    "Aborted",
    "AsyncClient",
    "AsyncGenerateStream",
    "AsyncSession",
    "Cancelled",
    "Client",
    "Completion",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FinishReason",
    "GenerateChunk",
    "GenerateStream",
    "InputKind",
    "Internal",
    "InvalidArgument",
    "InvalidSequence",
    "Limits",
    "ModelInfo",
    "ModelMismatch",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PositionMismatch",
    "Prediction",
    "ResourceExhausted",
    "SSPError",
    "SamplingParams",
    "Score",
    "SequenceLike",
    "ServerUnreachable",
    "ServingStatus",
    "Session",
    "SessionBusy",
    "SessionCheckpoint",
    "SessionExpired",
    "SessionInfo",
    "SessionMoved",
    "SessionStatus",
    "StreamOptions",
    "Task",
    "Tier",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Usage",
    "collect_completions",
]
