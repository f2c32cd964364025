"""Norms over parts of the features."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_runtime.mixers.heads import merged, split


class GroupRMSNorm(nn.Module):
    """RMS norm of each of `groups` equal parts of the features, with a weight for every feature."""

    def __init__(self, features: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        parts = split(x, self.groups)
        return merged(F.rms_norm(parts, parts.shape[-1:], eps=self.eps)) * self.weight


class GroupLayerNorm(nn.Module):
    """Layer norm of each of `groups` equal parts of the features, with a weight and maybe a bias for every feature."""

    def __init__(self, features: int, groups: int, eps: float = 1e-5, *, bias: bool = False) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        parts = split(x, self.groups)
        y = merged(F.layer_norm(parts, parts.shape[-1:], eps=self.eps)) * self.weight
        return y if self.bias is None else y + self.bias
