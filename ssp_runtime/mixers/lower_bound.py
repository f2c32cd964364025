"""The least that a gated recurrence keeps of its state: what HGRN and HGRN2 have in common."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssp_runtime.mixers.base import Coefficients

Bound = Annotated[float, Field(ge=0, lt=1)] | Literal["learned"]


class LearnedBound(Coefficients):
    """The sigmoid of `logits`, one a feature, which starts at 1/2."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(features))

    def forward(self) -> tuple[Tensor, ...]:
        return (torch.sigmoid(self.logits),)


class LowerBound(nn.Module):
    """The same number for all features, or one learned for each."""

    def __init__(self, bound: Bound, features: int) -> None:
        super().__init__()
        self._same = None if bound == "learned" else bound
        if bound == "learned":
            self.coefficients: Coefficients = LearnedBound(features)

    def forward(self, like: Tensor) -> Tensor:
        """() or (features,), on the device of `like`."""
        if self._same is not None:
            return like.new_tensor(self._same)
        return self.coefficients.forward()[0]
