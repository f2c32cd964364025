"""`ssp.v1.Classification`."""

import asyncio
import secrets
from dataclasses import dataclass

import numpy as np

from ssp.v1 import classification_pb2, common_pb2
from ssp_runtime.engine.batch_classifier import BatchClassifier
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.models.batching import Row
from ssp_runtime.sessions.manager import check_request_id
from ssp_server import wire
from ssp_server.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ClassificationService:
    registry: Registry

    async def Classify(self, request: classification_pb2.ClassifyRequest) -> classification_pb2.ClassifyResponse:
        check_request_id(request.request_id)
        classifier = self.registry.classifier(request.model)
        rows = [_row(i, message, classifier) for i, message in enumerate(request.inputs)]
        logits = await asyncio.wrap_future(classifier.submit(rows))
        labels = classifier.artifact.description.labels or tuple(map(str, range(logits.shape[1])))
        return classification_pb2.ClassifyResponse(
            request_id=request.request_id or secrets.token_hex(8),
            labels=labels,
            predictions=[_prediction(row, scores, labels) for row, scores in zip(rows, logits, strict=True)],
            usage=common_pb2.Usage(prompt_tokens=sum(map(len, rows))),
        )


def _row(i: int, message: common_pb2.SequenceInput, classifier: BatchClassifier) -> Row:
    try:
        return wire.row(message, classifier.artifact.description.tokenizer)
    except InvalidRequest as error:
        raise InvalidRequest(f"sequence {i}: {error}") from error


def _prediction(row: Row, logits: np.ndarray, labels: tuple[str, ...]) -> classification_pb2.Prediction:
    weights = np.exp(logits - logits.max())
    return classification_pb2.Prediction(
        label=labels[int(logits.argmax())],
        probabilities=(weights / weights.sum()).tolist(),
        logits=logits.tolist(),
        num_tokens=len(row),
    )
