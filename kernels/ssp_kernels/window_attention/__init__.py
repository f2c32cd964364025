"""Attention to the last W tokens, which a ring buffer holds (Beltagy et al., 2020, "Longformer", section 3.1), with
queries that share keys and values (Ainslie et al., 2023, "GQA")."""

from typing import Protocol

import torch
from torch import Tensor

from ssp_kernels.registry import Operator
from ssp_kernels.window_attention import reference, torch_form

Ring = tuple[Tensor, Tensor]  # keys (B, W, G, K) and values (B, W, G, V); the token at position t is in slot t % W


class WindowAttentionForm(Protocol):
    def forward(
        self,
        q_BLHK: Tensor,
        k_BLGK: Tensor,
        v_BLGV: Tensor,
        positions_BL: Tensor,
        since_BL: Tensor,
        ring: Ring,
        lengths_B: Tensor | None,
    ) -> tuple[Tensor, Ring]: ...
    def step(
        self,
        q_BHK: Tensor,
        k_BGK: Tensor,
        v_BGV: Tensor,
        position_B: Tensor,
        since_B: Tensor,
        ring: Ring,
        out: Ring | None,
    ) -> tuple[Tensor, Ring]: ...


OPERATOR: Operator[WindowAttentionForm] = Operator(
    "window_attention", {"reference": lambda: reference, "torch": lambda: torch_form}
)


def forward(
    q_BLHK: Tensor,
    k_BLGK: Tensor,
    v_BLGV: Tensor,
    positions_BL: Tensor,
    since_BL: Tensor | None,
    ring: Ring,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Ring]:
    """`y_t = sum_s softmax_s(q_t . k_s) v_s` over the last W tokens s, t itself among them, from a given ring buffer.

    Scores are not scaled and positions do not turn anything: that is done to queries and keys beforehand.

    Args:
        q_BLHK: queries (B, L, H, K), finite everywhere, as all that follows; L may be 0.
        k_BLGK, v_BLGV: keys (B, L, G, K) and values (B, L, G, V); H is a multiple of G, and H / G heads that follow
            each other share them.
        positions_BL: int64 (B, L), how many tokens came before each one; consecutive in a row.
        since_BL: int64 (B, L), the first position that a token sees, or None: as far back as the window goes. It may
            not see further in any case. `positions // W * W` makes blocks of W tokens that do not see each other.
        ring: keys (B, W, G, K) and values (B, W, G, V) of the last W tokens, that of position t in slot t % W; slots
            that no token was written to may hold anything finite.
        lengths_B: valid tokens of each row (B,), None: all. What follows them leaves the ring alone.

    Returns:
        Outputs (B, L, H, V) and the ring after each row's last valid token. Memory is linear in L.
    """
    since_BL = _since(positions_BL, since_BL, ring[0].shape[1])
    return OPERATOR.pick(q_BLHK).forward(q_BLHK, k_BLGK, v_BLGV, positions_BL, since_BL, ring, lengths_B)


def step(
    q_BHK: Tensor,
    k_BGK: Tensor,
    v_BGV: Tensor,
    position_B: Tensor,
    since_B: Tensor | None,
    ring: Ring,
    out: Ring | None = None,
) -> tuple[Tensor, Ring]:
    """One token of `forward`. The new ring is written to `out` if given, which may be the ring itself: then only the
    token's own slot is."""
    since_B = _since(position_B, since_B, ring[0].shape[1])
    return OPERATOR.pick(q_BHK).step(q_BHK, k_BGK, v_BGV, position_B, since_B, ring, out)


def _since(positions: Tensor, since: Tensor | None, window: int) -> Tensor:
    oldest = (positions - window + 1).clamp(min=0)
    return oldest if since is None else torch.maximum(oldest, since)
