"""What a language model says by itself, without an engine or a server: what both are compared with."""

from collections.abc import Sequence
from functools import cache

import torch

from ssp_runtime.models.model import LanguageModel

TIE = 1e-4  # tokens may differ where the two best logits are closer


class Greedy:
    """The greedy continuations of a model."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._continuation = cache(self._compute)

    def tokens(self, prompt: Sequence[int], count: int) -> list[int]:
        return self._continuation(tuple(prompt), count)[0]

    def check(self, tokens: Sequence[int], prompt: Sequence[int]) -> bool:
        """The tokens are the greedy continuation, up to a near tie, which is printed; whether there is none."""
        expected, gaps = self._continuation(tuple(prompt), len(tokens))
        for at, (token, wanted, gap) in enumerate(zip(tokens, expected, gaps, strict=True)):
            if token != wanted:
                assert gap < TIE, f"token {at} is {token}, not {wanted}: {list(tokens)} against {expected}"
                print(f"near tie at token {at}: {gap:.1e}")
                return False
        return True

    @torch.inference_mode()
    def _compute(self, prompt: tuple[int, ...], count: int) -> tuple[list[int], list[float]]:
        """The tokens, and at each how far apart the two best logits were."""
        tokens, gaps = [], []
        logits_BLV, state = self._model(torch.tensor([prompt]), self._model.initial_state(1))
        logits_BV = logits_BLV[:, -1]
        for _ in range(count):
            best = logits_BV[0].topk(2)
            tokens.append(int(best.indices[0]))
            gaps.append(float(best.values[0] - best.values[1]))
            logits_BV, state = self._model.step(best.indices[:1], state)
        return tokens, gaps
