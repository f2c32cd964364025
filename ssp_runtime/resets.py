"""Rows that hold several sequences: a token that resets finds the initial state, whatever came before it.

Each stretch between resets becomes a row of its own, in one batch; so no layer knows of resets, and none errs on them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssp_kernels.padding import masked
from ssp_runtime.mixers.base import Fold
from ssp_runtime.state import State


def forward_with_resets(
    fold: Fold, x: Tensor, state: State, resets_BL: Tensor, *, lengths_B: Tensor | None = None
) -> tuple[Tensor, State]:
    """`fold.forward` where the tokens marked in `resets_BL` (B, L), booleans, find the initial state.

    Inputs (B, L, ...), outputs, states and lengths are those of `Fold.forward`.
    """
    resets_BL = masked(resets_BL, lengths_B, False)
    if not bool(resets_BL.any()):
        return fold(x, state, lengths_B=lengths_B)  # type: ignore[no-any-return]  # nn.Module calls
    cut = _cut(resets_BL, lengths_B)
    before = {name: tensor[cut.rows] for name, tensor in state.items()}
    length = torch.arange(int(cut.lengths.max()), device=x.device)
    index_SL = (cut.begins[:, None] + length).clamp(max=resets_BL.numel() - 1)
    y_SL, after = fold(x.flatten(0, 1)[index_SL], reset(fold, before, cut.resets), lengths_B=cut.lengths)
    position_BL = torch.arange(resets_BL.numel(), device=x.device).view_as(resets_BL)
    offset_BL = (position_BL - cut.begins[cut.stretch]).clamp(max=len(length) - 1)
    return y_SL[cut.stretch, offset_BL], {name: tensor[cut.is_last] for name, tensor in after.items()}


def reset(fold: Fold, state: State, resets_B: Tensor) -> State:
    """The state with the rows marked in `resets_B` (B,) as before their first token; what a step does before it."""
    return {
        name: tensor.masked_fill(resets_B.view(-1, *[1] * (tensor.ndim - 1)), fold.state_spec[name].init)
        for name, tensor in state.items()
    }


@dataclass(frozen=True)
class _Cut:
    """Rows of L tokens, one after another, cut into S stretches. Padding belongs to none."""

    rows: Tensor  # (S,), as what follows
    begins: Tensor
    lengths: Tensor
    resets: Tensor  # whether it starts with one
    is_last: Tensor  # of its row
    stretch: Tensor  # that each token belongs to (B, L)


def _cut(resets_BL: Tensor, lengths_B: Tensor | None) -> _Cut:
    batch, length = resets_BL.shape
    begins_BL = resets_BL.clone()
    begins_BL[:, 0] = True
    begin_S = begins_BL.flatten().nonzero()[:, 0]
    row_S = begin_S // length
    is_last_S = row_S != torch.cat([row_S[1:], row_S.new_tensor([batch])])
    ends_B = torch.arange(batch, device=row_S.device) * length + (length if lengths_B is None else lengths_B)
    return _Cut(
        rows=row_S,
        begins=begin_S,
        lengths=torch.where(is_last_S, ends_B[row_S], begin_S.roll(-1)) - begin_S,
        resets=resets_BL.flatten()[begin_S],
        is_last=is_last_S,
        stretch=begins_BL.flatten().cumsum(0).view_as(resets_BL) - 1,
    )
