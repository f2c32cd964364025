"""Complex numbers as pairs of reals in a last dimension of size 2."""

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], dim=-1)


def twice_real_dot(a: Tensor, b: Tensor) -> Tensor:
    """`2 Re sum_n a_n b_n` of (..., N, 2): the sum over N numbers and their conjugates."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    return 2 * (a_re * b_re - a_im * b_im).sum(-1)
