"""Linear attention with decay: a matrix of outer products of keys and values, read by queries (Katharopoulos et al.,
2020, "Transformers are RNNs"; decays as in Yang et al., 2023, "Gated Linear Attention", equation 3)."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.linear_attention import reference, torch_form
from ssp_kernels.padding import masked
from ssp_kernels.registry import Operator, in_triton


class LinearAttentionForm(Protocol):
    def forward(
        self,
        q_BLHK: Tensor,
        k_BLHK: Tensor,
        v_BLHV: Tensor,
        log_decay_BLHK: Tensor,
        bonus_HK: Tensor | None,
        state_BHKV: Tensor,
    ) -> tuple[Tensor, Tensor]: ...
    def step(
        self,
        q_BHK: Tensor,
        k_BHK: Tensor,
        v_BHV: Tensor,
        log_decay_BHK: Tensor,
        bonus_HK: Tensor | None,
        state_BHKV: Tensor,
        out: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


OPERATOR: Operator[LinearAttentionForm] = Operator(
    "linear_attention",
    {"reference": lambda: reference, "torch": lambda: torch_form, "triton": in_triton("linear_attention")},
)


def forward(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay: Tensor,
    bonus_HK: Tensor | None,
    state_BHKV: Tensor,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T`, `y_t = S_t^T q_t` from a given state, each head by itself.

    With a bonus the newest token is read before it is decayed, and weighted: `y_t = (S_{t-1} + diag(bonus) k_t v_t^T)^T
    q_t` (Peng et al., 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence", equations 8, 9).

    Args:
        q_BLHK, k_BLHK, v_BLHV: queries, keys (B, L, H, K) and values (B, L, H, V), finite everywhere; L may be 0.
        log_decay: at most 0, minus infinity included: (B, L, H, K), (B, L, H, 1) for one decay a head, or without B and
            L for the same at every token.
        bonus_HK: (H, K) or None.
        state_BHKV: (B, H, K, V).
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        Outputs (B, L, H, V) and the state after each row's last valid token. Training keeps one state per chunk.
    """
    log_decay_BLHK = masked(log_decay.expand(*q_BLHK.shape[:3], -1), lengths_B)
    k_BLHK = masked(k_BLHK, lengths_B)
    return OPERATOR.pick(q_BLHK).forward(q_BLHK, k_BLHK, v_BLHV, log_decay_BLHK, bonus_HK, state_BHKV)


def step(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHV: Tensor,
    log_decay: Tensor,
    bonus_HK: Tensor | None,
    state_BHKV: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    log_decay_BHK = log_decay.expand(*q_BHK.shape[:2], -1)
    return OPERATOR.pick(q_BHK).step(q_BHK, k_BHK, v_BHV, log_decay_BHK, bonus_HK, state_BHKV, out)
