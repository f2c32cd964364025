"""What keeps exponential gates from overflowing: an accumulator `s_t = exp(f_t) s_{t-1} + exp(i_t) x_t` is stored as
`s_t exp(-m_t)`, where m is the running maximum of its logarithmic gates (Milakov and Gimelshein, 2018, "Online
normalizer calculation for softmax"; Beck et al., 2024, "xLSTM", equation 15)."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.padding import masked
from ssp_kernels.registry import Operator
from ssp_kernels.stabilizer import reference, torch_form


class StabilizerForm(Protocol):
    def forward(self, log_input_BLD: Tensor, log_decay_BLD: Tensor, state_BD: Tensor) -> tuple[Tensor, Tensor]: ...
    def step(
        self, log_input_BD: Tensor, log_decay_BD: Tensor, state_BD: Tensor, out: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...


OPERATOR: Operator[StabilizerForm] = Operator(
    "stabilizer", {"reference": lambda: reference, "torch": lambda: torch_form}
)


def forward(
    log_input_BLD: Tensor, log_decay_BLD: Tensor, state_BD: Tensor, lengths_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`m_t = max(log_decay_t + m_{t-1}, log_input_t)` from a given state, and the gates relative to it.

    Args:
        log_input_BLD: logarithms of input gates (B, L, D), minus infinity allowed; L may be 0.
        log_decay_BLD: logarithms of forget gates (B, L, D), or (D,) if they are the same at every token; finite.
        state_BD: m before the first token (B, D); minus infinity for an accumulator that is empty.
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        `log_decay_t + m_{t-1} - m_t` and `log_input_t - m_t`, both at most 0, and `m_t`, as (B, L, D, 3); and the m
        after each row's last valid token (B, D).
    """
    log_decay_BLD = masked(log_decay_BLD.expand_as(log_input_BLD), lengths_B)
    log_input_BLD = masked(log_input_BLD, lengths_B, -float("inf"))
    return OPERATOR.pick(log_input_BLD).forward(log_input_BLD, log_decay_BLD, state_BD)


def step(
    log_input_BD: Tensor, log_decay_BD: Tensor, state_BD: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    return OPERATOR.pick(log_input_BD).step(log_input_BD, log_decay_BD.expand_as(log_input_BD), state_BD, out)
