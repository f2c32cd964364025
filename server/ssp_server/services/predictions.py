"""What the calls that classify have in common."""

import numpy as np

from ssp.v1 import classification_pb2, common_pb2
from ssp_runtime.engine.batch_classifier import BatchClassifier
from ssp_runtime.models.batching import Row
from ssp_server import wire


def read_row(message: common_pb2.SequenceInput, classifier: BatchClassifier) -> Row:
    """A sequence that the classifier takes. Raises `InvalidRequest`."""
    row = wire.row(message, classifier.artifact.description.tokenizer)
    classifier.check(row)
    return row


def class_names(classifier: BatchClassifier, logits: np.ndarray) -> tuple[str, ...]:
    """Of logits (..., C)."""
    return classifier.artifact.description.labels or tuple(map(str, range(logits.shape[-1])))


def prediction(row: Row, logits: np.ndarray, labels: tuple[str, ...]) -> classification_pb2.Prediction:
    weights = np.exp(logits - logits.max())
    return classification_pb2.Prediction(
        label=labels[int(logits.argmax())],
        probabilities=(weights / weights.sum()).tolist(),
        logits=logits.tolist(),
        num_tokens=len(row),
    )
