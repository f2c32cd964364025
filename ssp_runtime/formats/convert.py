"""From training form to recurrent form: what depends on parameters alone is computed once."""

from torch import nn

from ssp_runtime.mixers.base import Coefficients, FixedCoefficients


def to_recurrent(model: nn.Module) -> None:
    """Replaces every `Coefficients` in the model by the values it has now: discretization and `-exp(A_log)` are then
    no longer part of a step. The model keeps its inputs, outputs and state; it cannot be trained any further."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Coefficients) and not isinstance(child, FixedCoefficients):
                setattr(parent, name, FixedCoefficients(child()))
    model.requires_grad_(False).eval()
