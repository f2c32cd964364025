"""RWKV-4's recurrence: values averaged with exponential weights that decay, the newest weighted by a bonus (Peng et
al., 2023, "RWKV: Reinventing RNNs for the Transformer Era", section 3.1; its stable form, appendix D)."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.padding import masked
from ssp_kernels.registry import Operator
from ssp_kernels.wkv import reference, torch_form
from ssp_kernels.wkv.reference import States


class WKVForm(Protocol):
    def forward(
        self, k_BLD: Tensor, v_BLD: Tensor, log_decay_BLD: Tensor, bonus_D: Tensor, states: States
    ) -> tuple[Tensor, States]: ...
    def step(
        self, k_BD: Tensor, v_BD: Tensor, log_decay_BD: Tensor, bonus_D: Tensor, states: States, out: States | None
    ) -> tuple[Tensor, States]: ...


OPERATOR: Operator[WKVForm] = Operator("wkv", {"reference": lambda: reference, "torch": lambda: torch_form})


def forward(
    k_BLD: Tensor,
    v_BLD: Tensor,
    log_decay: Tensor,
    bonus_D: Tensor,
    states: States,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, States]:
    """`y_t = (n_{t-1} + exp(bonus + k_t) v_t) / (d_{t-1} + exp(bonus + k_t))` from given sums
    `n_t = exp(log_decay_t) n_{t-1} + exp(k_t) v_t` and `d_t = exp(log_decay_t) d_{t-1} + exp(k_t)`.

    Args:
        k_BLD, v_BLD: logarithms of weights, and what they weigh (B, L, D), finite everywhere; L may be 0.
        log_decay: at most 0, minus infinity included: (B, L, D), or (D,) for the same at every token.
        bonus_D: added to the newest k (D,).
        states: n and d divided by `exp(m)`, and m, the running maximum of the decayed k; each (B, D). Before the first
            token 0, 0 and minus infinity.
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the states alone.

    Returns:
        Outputs (B, L, D) and the states after each row's last valid token.
    """
    log_decay_BLD = masked(log_decay.expand_as(k_BLD), lengths_B)
    k_BLD = masked(k_BLD, lengths_B, -float("inf"))
    return OPERATOR.pick(k_BLD).forward(k_BLD, v_BLD, log_decay_BLD, bonus_D, states)


def step(
    k_BD: Tensor, v_BD: Tensor, log_decay: Tensor, bonus_D: Tensor, states: States, out: States | None = None
) -> tuple[Tensor, States]:
    """One token of `forward`. The new states are written to `out` if given, which may be the states themselves."""
    return OPERATOR.pick(k_BD).step(k_BD, v_BD, log_decay.expand_as(k_BD), bonus_D, states, out)
