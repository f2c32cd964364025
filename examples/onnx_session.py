"""Streams a completion from a model of bytes that was exported, with onnxruntime and numpy alone:

ssp-model export-onnx ssp_runtime/shipped/python-bytes exported
python examples/onnx_session.py exported "import json"
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class Session:
    """The state of one sequence, and the two graphs that advance it."""

    def __init__(self, folder: Path) -> None:
        self._prefill = onnxruntime.InferenceSession(folder / "prefill.onnx", providers=["CPUExecutionProvider"])
        self._step = onnxruntime.InferenceSession(folder / "step.onnx", providers=["CPUExecutionProvider"])
        spec = json.loads(self._step.get_modelmeta().custom_metadata_map["ssp.state"])
        self.state = {
            name: np.full((1, *tensor["shape"]), float(tensor["init"]), tensor["dtype"])
            for name, tensor in spec.items()
        }

    def append(self, tokens: list[int]) -> np.ndarray:
        """Scores of what may follow these tokens, of which there is at least one."""
        inputs = {"tokens": np.array([tokens]), "lengths": np.array([len(tokens)])}
        scores: np.ndarray = self._advance(self._prefill, inputs)[0, -1]
        return scores

    def step(self, token: int) -> np.ndarray:
        scores: np.ndarray = self._advance(self._step, {"tokens": np.array([token])})[0]
        return scores

    def _advance(self, graph: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> np.ndarray:
        outputs = ["logits", *(f"new.{name}" for name in self.state)]
        logits, *state = graph.run(outputs, {**inputs, **self.state})
        self.state = dict(zip(self.state, state, strict=True))
        return np.asarray(logits)


def main() -> None:
    folder, prompt = Path(sys.argv[1]), sys.argv[2]
    session = Session(folder)
    scores = session.append([0, *prompt.encode()])  # a text of bytes begins with a zero
    for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 100):
        token = int(scores.argmax())
        if token == 0:
            break
        sys.stdout.buffer.write(bytes([token]))
        sys.stdout.flush()
        scores = session.step(token)


if __name__ == "__main__":
    main()
