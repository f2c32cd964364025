"""Dropout of whole features: one mask for all tokens of a sequence (as in the thesis)."""

from torch import Tensor, nn
from torch.nn import functional as F


class FeatureDropout(nn.Module):
    """Zeroes features of (B, L, D) with probability `p` while training; a mask is shared by a row's tokens."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BLD: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x_BLD
        return x_BLD * F.dropout(x_BLD.new_ones(len(x_BLD), 1, x_BLD.shape[-1]), self.p)
