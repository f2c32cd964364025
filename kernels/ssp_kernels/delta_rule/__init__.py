"""The delta rule with decay: a matrix of keys and values in which a token replaces what its key held before (Schlag et
al., 2021, "Linear Transformers Are Secretly Fast Weight Programmers", section 4.2; its general form, a diagonal plus a
rank-one matrix for transition, as in Peng et al., 2025, "RWKV-7 'Goose' with Expressive Dynamic State
Evolution")."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.delta_rule import reference, torch_form
from ssp_kernels.padding import masked
from ssp_kernels.registry import Operator


class DeltaRuleForm(Protocol):
    def forward(
        self,
        q_BLHK: Tensor,
        k_BLHK: Tensor,
        v_BLHV: Tensor,
        log_decay_BLHK: Tensor,
        a_BLHK: Tensor,
        b_BLHK: Tensor,
        state_BHKV: Tensor,
    ) -> tuple[Tensor, Tensor]: ...
    def step(
        self,
        q_BHK: Tensor,
        k_BHK: Tensor,
        v_BHV: Tensor,
        log_decay_BHK: Tensor,
        a_BHK: Tensor,
        b_BHK: Tensor,
        state_BHKV: Tensor,
        out: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


OPERATOR: Operator[DeltaRuleForm] = Operator(
    "delta_rule", {"reference": lambda: reference, "torch": lambda: torch_form}
)


def forward(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay: Tensor,
    a_BLHK: Tensor,
    b_BLHK: Tensor,
    state_BHKV: Tensor,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`S_t = (diag(exp(log_decay_t)) + a_t b_t^T) S_{t-1} + k_t v_t^T`, `y_t = S_t^T q_t` from a given state, each head
    by itself. It is up to the caller that the transition does not grow the state.

    Args:
        q_BLHK, k_BLHK, v_BLHV: queries, keys (B, L, H, K) and values (B, L, H, V), finite everywhere; L may be 0.
        log_decay: at most 0, minus infinity included: (B, L, H, K), (B, L, H, 1) for one decay a head, or without B and
            L for the same at every token.
        a_BLHK, b_BLHK: b reads the state before the token, a is where that is added; finite everywhere.
        state_BHKV: (B, H, K, V).
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        Outputs (B, L, H, V) and the state after each row's last valid token. Training keeps one state per chunk.
    """
    log_decay_BLHK = masked(log_decay.expand(*q_BLHK.shape[:3], -1), lengths_B)
    k_BLHK, a_BLHK = masked(k_BLHK, lengths_B), masked(a_BLHK, lengths_B)
    return OPERATOR.pick(q_BLHK).forward(q_BLHK, k_BLHK, v_BLHV, log_decay_BLHK, a_BLHK, b_BLHK, state_BHKV)


def step(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHV: Tensor,
    log_decay: Tensor,
    a_BHK: Tensor,
    b_BHK: Tensor,
    state_BHKV: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    log_decay_BHK = log_decay.expand(*q_BHK.shape[:2], -1)
    return OPERATOR.pick(q_BHK).step(q_BHK, k_BHK, v_BHV, log_decay_BHK, a_BHK, b_BHK, state_BHKV, out)
