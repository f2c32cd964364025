"""What the calls that classify have in common."""

import numpy as np

from ssp.v1 import classification_pb2
from ssp_runtime.engine.batch_runner import BatchRunner
from ssp_runtime.models.batching import Row


def class_names(classifier: BatchRunner) -> tuple[str, ...]:
    """In the order of its logits."""
    count = classifier.artifact.classifier.decoder.out_features
    return classifier.artifact.description.labels or tuple(map(str, range(count)))


def prediction(row: Row, logits: np.ndarray, labels: tuple[str, ...]) -> classification_pb2.Prediction:
    weights = np.exp(logits - logits.max())
    return classification_pb2.Prediction(
        label=labels[int(logits.argmax())],
        probabilities=(weights / weights.sum()).tolist(),
        logits=logits.tolist(),
        num_tokens=len(row),
    )
