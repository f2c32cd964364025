"""Causal depthwise convolution over time, continuing from the last K - 1 inputs."""

from typing import Protocol

from torch import Tensor

from ssp_kernels.causal_conv1d import reference, torch_form
from ssp_kernels.registry import Operator


class CausalConv1dForm(Protocol):
    def forward(
        self, x_BLD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, lengths_B: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...
    def step(
        self, x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, out: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...


def _native() -> CausalConv1dForm:
    from ssp_kernels.causal_conv1d import native_form

    native_form.library()
    return native_form


OPERATOR: Operator[CausalConv1dForm] = Operator(
    "causal_conv1d", {"reference": lambda: reference, "torch": lambda: torch_form, "native": _native}
)


def forward(
    x_BLD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, lengths_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`y_t = bias + sum_k weight[k] x_{t-K+1+k}`, where inputs before the first come from the state.

    Args:
        x_BLD: inputs (B, L, D), L may be 0.
        weight_DK: (D, K); the last column weighs the current input.
        bias_D: (D,) or None.
        state_BDK: the last K - 1 inputs (B, D, K - 1), oldest first.
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the state alone.

    Returns:
        Outputs (B, L, D) and the new state (B, D, K - 1).
    """
    return OPERATOR.pick(x_BLD).forward(x_BLD, weight_DK, bias_D, state_BDK, lengths_B)


def step(
    x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, state_BDK: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token of `forward`. The new state is written to `out` if given, which may be the state itself."""
    return OPERATOR.pick(x_BD).step(x_BD, weight_DK, bias_D, state_BDK, out)
