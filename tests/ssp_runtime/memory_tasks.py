"""Tasks that cannot be done without memory. Inputs and targets are token ids; a target of -1 asks for nothing."""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.models.model import LanguageModel, Model
from ssp_runtime.training.tasks import Score, Task

SYMBOLS = 8
NOTHING = -1


class MemoryTask(Task):
    """Draws `BATCH` fresh examples a step; scores the part of the answers that are right on 512 others. `STEPS` at the
    rate `LR` do for a small model to learn it."""

    BATCH, STEPS, LR = 64, 400, 5e-3
    vocab_size: int

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self.tokens_per_step = self.BATCH * self.examples(1)[0].shape[1]

    @abstractmethod
    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (count, L)."""

    def loss(self, model: Model) -> Tensor:
        assert isinstance(model, LanguageModel)
        ids, targets = self.examples(self.BATCH)
        logits, _ = model(ids, model.initial_state(len(ids)))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NOTHING)

    @torch.no_grad()
    def evaluate(self, model: Model) -> Score:
        assert isinstance(model, LanguageModel)
        ids, targets = self.examples(512)
        logits, _ = model(ids, model.initial_state(len(ids)))
        asked = targets != NOTHING
        right = (logits.argmax(-1) == targets)[asked].double().mean()
        return Score(name="accuracy", value=float(right))

    def _symbols(self, *shape: int) -> Tensor:
        return torch.randint(SYMBOLS, shape, generator=self._generator)


class DelayedCopying(MemoryTask):
    """Every token again, `DELAY` tokens later."""

    STEPS, LR = 250, 1e-2
    DELAY, LENGTH = 2, 16
    vocab_size = SYMBOLS

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        ids = self._symbols(count, self.LENGTH)
        targets = torch.full_like(ids, NOTHING)
        targets[:, self.DELAY :] = ids[:, : -self.DELAY]
        return ids, targets


class SelectiveCopying(MemoryTask):
    """Some symbols among blanks, to be told in their order when asked (Gu and Dao, 2023, "Mamba", section 4.1.1)."""

    STEPS = 600
    COUNT, LENGTH = 3, 12
    BLANK, ASK = SYMBOLS, SYMBOLS + 1
    vocab_size = SYMBOLS + 2

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        places = torch.rand(count, self.LENGTH, generator=self._generator).argsort(-1)[:, : self.COUNT].sort().values
        symbols = self._symbols(count, self.COUNT)
        shown = torch.full((count, self.LENGTH), self.BLANK).scatter(1, places, symbols)
        ids = torch.cat([shown, torch.full((count, self.COUNT), self.ASK)], dim=1)
        return ids, torch.cat([torch.full_like(shown, NOTHING), symbols], dim=1)


class AssociativeRecall(MemoryTask):
    """Tokens that are a key and a value, then keys alone, whose values are wanted (after Arora et al., 2023, "Zoology",
    where keys and values are tokens of their own)."""

    PAIRS = 3
    vocab_size = SYMBOLS * SYMBOLS + SYMBOLS

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        keys = torch.rand(count, SYMBOLS, generator=self._generator).argsort(-1)[:, : self.PAIRS]
        values = self._symbols(count, self.PAIRS)
        order = torch.rand(count, self.PAIRS, generator=self._generator).argsort(-1)
        pairs, asked = keys * SYMBOLS + values, SYMBOLS * SYMBOLS + keys.gather(1, order)
        targets = torch.cat([torch.full_like(pairs, NOTHING), values.gather(1, order)], dim=1)
        return torch.cat([pairs, asked], dim=1), targets
