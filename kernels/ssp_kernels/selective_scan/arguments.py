"""What the compiled forms ask about their arguments before they hand out addresses."""

from torch import Tensor


def consistent(x: Tensor, dt: Tensor, A_DN: Tensor, B: Tensor, C: Tensor, state_BDN: Tensor) -> bool:
    """Whether the shapes fit each other, for a whole sequence (B, L, ...) or for one token (B, ...)."""
    features, states = A_DN.shape
    return (
        dt.shape == x.shape == (*x.shape[:-1], features)
        and B.shape == C.shape == (*x.shape[:-1], states)
        and state_BDN.shape == (len(x), features, states)
    )
