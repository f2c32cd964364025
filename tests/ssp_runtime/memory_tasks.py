"""Tasks that cannot be done without memory. Inputs and targets are token ids; a target of -1 asks for nothing."""

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.models.model import LanguageModel, Model
from ssp_runtime.training.tasks import Score, Task

SYMBOLS = 8
BLANK, ASK = SYMBOLS, SYMBOLS + 1
VOCABULARY = SYMBOLS + 2
NOTHING = -1


class MemoryTask(Task):
    """Draws `BATCH` fresh examples a step; scores the part of the answers that are right on 512 others."""

    BATCH = 64

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
    """Every token again, `DELAY` tokens later (after Arjovsky et al., 2016, "Unitary Evolution RNNs", section 5.1)."""

    DELAY = 6

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        ids = self._symbols(count, 24)
        targets = torch.full_like(ids, NOTHING)
        targets[:, self.DELAY :] = ids[:, : -self.DELAY]
        return ids, targets


class SelectiveCopying(MemoryTask):
    """Three symbols among blanks, to be told in their order when asked (Gu and Dao, 2023, "Mamba", section 4.1.1)."""

    COUNT, LENGTH = 3, 12

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        places = torch.rand(count, self.LENGTH, generator=self._generator).argsort(-1)[:, : self.COUNT].sort().values
        symbols = self._symbols(count, self.COUNT)
        shown = torch.full((count, self.LENGTH), BLANK).scatter(1, places, symbols)
        ids = torch.cat([shown, torch.full((count, self.COUNT), ASK)], dim=1)
        return ids, torch.cat([torch.full_like(shown, NOTHING), symbols], dim=1)


class AssociativeRecall(MemoryTask):
    """Pairs of a key and a value, then keys again, whose values are wanted (Arora et al., 2023, "Zoology")."""

    PAIRS = 3

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        keys = torch.rand(count, SYMBOLS, generator=self._generator).argsort(-1)[:, : self.PAIRS]
        values = self._symbols(count, self.PAIRS)
        order = torch.rand(count, self.PAIRS, generator=self._generator).argsort(-1)
        pairs = torch.stack([keys, values], dim=-1).flatten(1)
        ids = torch.cat([pairs, keys.gather(1, order)], dim=1)
        return ids, torch.cat([torch.full_like(pairs, NOTHING), values.gather(1, order)], dim=1)
