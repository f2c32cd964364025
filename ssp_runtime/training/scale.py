"""The scale of data: models learn best from numbers around 0 and 1."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from ssp_runtime.models.model import SequenceRegressor

CONSTANT = 1e-7  # of the mean: less than this float32 cannot tell


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Mean and standard deviation of each number of a vector, in float64; a deviation of 1 for what is constant."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Self:
        """That of vectors (T, D)."""
        std, mean = torch.std_mean(vectors.double(), dim=0, correction=0)
        return cls(mean=mean, std=torch.where(std > CONSTANT * mean.abs(), std, 1.0))

    def standardized(self, vectors: Tensor) -> Tensor:
        return ((vectors.double() - self.mean) / self.std).float()


@torch.no_grad()
def rescale(model: SequenceRegressor, inputs: Scale, targets: Scale) -> None:
    """Turns a model of standardized numbers into one of the numbers themselves: a scale is a linear map, as are the
    embedding before the layers and the head behind them."""
    embedding, head = model.backbone.embedding, model.values_head
    assert isinstance(embedding, nn.Linear)
    weight, bias = embedding.weight.double() / inputs.std, embedding.bias.double()
    embedding.bias.copy_(bias - weight @ inputs.mean)
    embedding.weight.copy_(weight)
    head.bias.copy_(head.bias * targets.std + targets.mean)
    head.weight.copy_(head.weight * targets.std[:, None])
