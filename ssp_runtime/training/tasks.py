"""What is learnt: batches, their loss, and the score on held-out data."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_kernels.padding import masked
from ssp_runtime.models.batching import padded
from ssp_runtime.models.model import Classifier, LanguageModel, Model
from ssp_runtime.training.stream import Stream, outputs_in_pieces


@dataclass(frozen=True, kw_only=True)
class Score:
    """`name` says what `value` is."""

    name: str
    value: float


class Task(ABC):
    """Draws batches of training data. `state_dict` holds what is random or remembered, so that training resumes."""

    @abstractmethod
    def loss(self, model: Model) -> Tensor: ...
    @abstractmethod
    def evaluate(self, model: Model) -> Score: ...
    def finish(self, model: Model) -> None:  # noqa: B027 - most have nothing left to do
        """Called once on the trained model, before it is written."""

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        assert not state

    tokens_per_step: int


class NextToken(Task):
    """Next-token prediction over one long `Stream`. With `resets` a token `bos_id`, which begins a text, finds the
    initial state."""

    def __init__(
        self,
        stream: Sequence[int] | bytes,
        heldout: Sequence[Sequence[int] | bytes],
        *,
        batch_size: int,
        length: int,
        bos_id: int,
        resets: bool = False,
    ) -> None:
        ids = (
            torch.frombuffer(bytearray(stream), dtype=torch.uint8).long()
            if isinstance(stream, bytes)
            else torch.tensor(stream)
        )
        begins = (ids[:-1] == bos_id) & resets
        self._stream = Stream(ids[:-1], ids[1:], begins, batch_size=batch_size, length=length)
        self._heldout, self._bos_id = heldout, bos_id
        self.tokens_per_step = batch_size * length

    def loss(self, model: Model) -> Tensor:
        assert isinstance(model, LanguageModel)
        logits, targets = self._stream.advance(model)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def evaluate(self, model: Model) -> Score:
        assert isinstance(model, LanguageModel)
        nats, tokens = total_nats(model, self._heldout, self._bos_id)
        return Score(name="bits per token", value=nats / math.log(2) / tokens)

    def state_dict(self) -> dict[str, object]:
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._stream.load_state_dict(state)


@torch.inference_mode()
def total_nats(
    model: LanguageModel, sequences: Sequence[Sequence[int] | bytes], bos_id: int, rows: int = 16
) -> tuple[float, int]:
    """What the model needs to code the sequences, each from the initial state and `bos_id`, and their tokens."""
    nats, ordered = 0.0, sorted(sequences, key=len, reverse=True)
    for first in range(0, len(ordered), rows):
        nats += _batch_nats(model, [list(sequence) for sequence in ordered[first : first + rows]], bos_id)
    return nats, sum(map(len, sequences))


def _batch_nats(model: LanguageModel, batch: list[list[int]], bos_id: int) -> float:
    """Of sequences that come longest first; those that have ended drop out."""
    lengths = torch.tensor([len(ids) for ids in batch])
    targets = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.long) for ids in batch], batch_first=True)
    inputs = torch.cat([torch.full((len(batch), 1), bos_id), targets[:, :-1]], dim=1)
    nats = 0.0
    for piece, left, logits in outputs_in_pieces(model, inputs, lengths):
        losses = F.cross_entropy(logits.transpose(1, 2), targets[: len(left), piece], reduction="none")
        nats += float(masked(losses[..., None], left).double().sum())
    return nats


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Sequences of token ids and the class of each."""

    sequences: Sequence[Sequence[int]]
    labels: Sequence[int]


class Classification(Task):
    """Cross-entropy over classes, on shuffled batches of padded sequences.

    `noise` is the part of the training tokens that are replaced by random ones of the sequence itself, so that a small
    data set is not learnt by heart.
    """

    def __init__(self, train: Labelled, heldout: Labelled, *, batch_size: int, seed: int, noise: float = 0.0) -> None:
        if not train.sequences or not heldout.sequences:
            raise ValueError("classification needs at least one training and one held-out sequence")
        self._train, self._heldout, self._batch_size, self._noise = train, heldout, batch_size, noise
        self._generator = torch.Generator().manual_seed(seed)
        self._order: list[int] = []
        self.tokens_per_step = batch_size * sum(map(len, train.sequences)) // len(train.sequences)

    def loss(self, model: Model) -> Tensor:
        assert isinstance(model, Classifier)
        if not self._order:
            self._order = torch.randperm(len(self._train.labels), generator=self._generator).tolist()
        batch, self._order = self._order[: self._batch_size], self._order[self._batch_size :]
        ids, lengths = padded([self._train.sequences[i] for i in batch])
        logits = model(self._disturbed(ids, lengths), lengths)
        return F.cross_entropy(logits, torch.tensor([self._train.labels[i] for i in batch]))

    def _disturbed(self, ids_BL: Tensor, lengths_B: Tensor | None) -> Tensor:
        if self._noise == 0:
            return ids_BL
        valid = ids_BL.shape[1] if lengths_B is None else lengths_B[:, None]
        source_BL = (torch.rand(ids_BL.shape, generator=self._generator) * valid).long()
        chosen_BL = torch.rand(ids_BL.shape, generator=self._generator) < self._noise
        return torch.where(chosen_BL, ids_BL.gather(1, source_BL), ids_BL)

    def evaluate(self, model: Model) -> Score:
        assert isinstance(model, Classifier)
        predicted = classify(model, self._heldout.sequences).argmax(-1)
        correct = (predicted == torch.tensor(self._heldout.labels)).double().mean()
        return Score(name="accuracy", value=float(correct))

    def state_dict(self) -> dict[str, object]:
        return {"order": self._order, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._order = state["order"]  # type: ignore[assignment]
        self._generator.set_state(state["generator"])  # type: ignore[arg-type]


@torch.inference_mode()
def classify(model: Classifier, sequences: Sequence[Sequence[int]], rows: int = 64) -> Tensor:
    """Logits (number of sequences, C), in evaluation mode."""
    was_training = model.training
    model.eval()
    batches = (sequences[first : first + rows] for first in range(0, len(sequences), rows))
    logits = torch.cat([model(*padded(batch)) for batch in batches])
    model.train(was_training)
    return logits
