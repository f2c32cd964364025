"""Long convolutions by FFT."""

import torch
from torch import Tensor


def causal_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """`y_t = sum_{j <= t} kernel_j x_{t-j}` along the last dimension, of equal length in both; the others broadcast."""
    length = x.shape[-1]
    product = torch.fft.rfft(x, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    y: Tensor = torch.fft.irfft(product, n=2 * length)
    return y[..., :length]
