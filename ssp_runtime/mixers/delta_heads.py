"""Heads that follow the delta rule: what DeltaNet, Gated DeltaNet and KDA have in common."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssp_kernels import delta_rule
from ssp_runtime.mixers.heads import head_dim, split
from ssp_runtime.mixers.short_convolution import ShortConvolution
from ssp_runtime.run import Run
from ssp_runtime.state import TensorSpec


class DeltaHeads(nn.Module):
    """`S_t = (I - beta_t k_t k_t^T) diag(a_t) S_{t-1} + beta_t k_t v_t^T`, `y_t = S_t^T q_t`, with k and q of length 1:
    after the decay a, what is held under a token's key moves towards its value by beta.

    Queries, keys and values go through a short causal convolution, if there is one, and SiLU. beta is between 0 and 1;
    between 0 and 2 if transitions may have negative eigenvalues (Grazzi et al., 2024, "Unlocking State-Tracking in
    Linear RNNs Through Negative Eigenvalues").
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_key: int,
        d_value: int,
        d_conv: int | None,
        *,
        negative_eigenvalues: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.sizes = num_heads, [d_key, d_key, d_value]
        self.largest_beta = 2.0 if negative_eigenvalues else 1.0
        keys, values, features = head_dim(d_key, num_heads), head_dim(d_value, num_heads), sum(self.sizes)
        self.q_proj = nn.Linear(d_model, d_key, bias=False)
        self.k_proj = nn.Linear(d_model, d_key, bias=False)
        self.v_proj = nn.Linear(d_model, d_value, bias=False)
        self.b_proj = nn.Linear(d_model, num_heads, bias=False)
        self.conv1d = ShortConvolution(features, d_conv, bias=False) if d_conv else None
        self.state_spec = {
            **(self.conv1d.state_spec if self.conv1d else {}),
            "recurrent_state": TensorSpec((num_heads, keys, values), "accumulator"),
        }

    def compute(self, x: Tensor, log_decay: Tensor, run: Run) -> Tensor:
        """What the heads read (..., H, V). Decays are (..., H, K or 1), or (H, 1) for the same at every token."""
        u = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)
        u = F.silu(u if self.conv1d is None else self.conv1d.compute(u, run))
        q, k, v = (split(t, self.num_heads) for t in torch.split(u, self.sizes, dim=-1))
        beta = self.largest_beta * torch.sigmoid(self.b_proj(x))[..., None]
        return run(delta_rule, *replacing(_unit(q), _unit(k), v, beta, log_decay), state="recurrent_state")


def replacing(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor) -> tuple[Tensor, ...]:
    """The arguments of `delta_rule` for tokens that replace, by beta (..., H, 1), what their keys hold."""
    written = beta * k
    return q * q.shape[-1] ** -0.5, written, v, log_decay, -written, log_decay.exp() * k


def _unit(x: Tensor) -> Tensor:
    """Of length 1, but for an x of 0."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
