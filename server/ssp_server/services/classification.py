"""`ssp.v1.Classification`."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ssp.v1 import classification_pb2, common_pb2
from ssp_runtime.engine.batch_runner import BatchRunner
from ssp_runtime.models.batching import Row
from ssp_runtime.sessions.checks import check_request_id
from ssp_server.registry import Registry
from ssp_server.services.classify_many import Stream
from ssp_server.services.predictions import class_names, prediction
from ssp_server.services.rows import read_row, sequence


@dataclass(frozen=True, kw_only=True)
class ClassificationService:
    registry: Registry

    async def Classify(self, request: classification_pb2.ClassifyRequest) -> classification_pb2.ClassifyResponse:
        check_request_id(request.request_id)
        classifier = self.registry.classifier(request.model)
        rows = [_row(i, message, classifier) for i, message in enumerate(request.inputs)]
        logits = await asyncio.wrap_future(classifier.submit(rows))
        labels = class_names(classifier)
        return classification_pb2.ClassifyResponse(
            request_id=request.request_id or secrets.token_hex(8),
            labels=labels,
            predictions=[prediction(row, scores, labels) for row, scores in zip(rows, logits, strict=True)],
            usage=common_pb2.Usage(prompt_tokens=sum(map(len, rows))),
        )

    async def ClassifyMany(
        self, requests: AsyncIterator[classification_pb2.ClassifyManyRequest]
    ) -> AsyncIterator[classification_pb2.ClassifyManyResponse]:
        responses = Stream(self.registry).responses(requests)
        try:
            async for response in responses:
                yield response
        finally:
            await responses.aclose()  # type: ignore[attr-defined]  # an async generator


def _row(i: int, message: common_pb2.SequenceInput, classifier: BatchRunner) -> Row:
    with sequence(i):
        return read_row(message, classifier)
