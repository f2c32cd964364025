"""`dplr_ssm` in chunks: a convolution by FFT within a chunk, the state carried from chunk to chunk.

Powers of the matrix come from repeated squaring of the matrix in full, in float64, never from its eigenvectors, which
are nearly parallel: HiPPO-LegS's have condition 4e19 at 32 states. A chunk is no shorter than a state, so that the
states between chunks take no more memory than the tokens.

Shape suffixes: I chunks, T tokens of a chunk, S = 2 N real numbers of a state (see `matrix`).
"""

import math

import torch
from torch import Tensor

from ssp_kernels.convolution import causal_convolution
from ssp_kernels.dplr_ssm.matrix import readout, transition_matrix
from ssp_kernels.dplr_ssm.reference import step
from ssp_kernels.padding import latest_first

__all__ = ["forward", "step"]


def forward(
    x_BLD: Tensor,
    decay_DN2: Tensor,
    U_DN2: Tensor,
    V_DN2: Tensor,
    Bbar_DN2: Tensor,
    C_DN2: Tensor,
    state_BDN2: Tensor,
    lengths_B: Tensor | None,
) -> tuple[Tensor, Tensor]:
    batch, length, _ = x_BLD.shape
    if x_BLD.numel() == 0:
        return torch.zeros_like(x_BLD), state_BDN2.clone()
    tables = _Tables(decay_DN2, U_DN2, V_DN2, Bbar_DN2, C_DN2, length)
    x_DBIT = _chunks(x_BLD.permute(2, 0, 1), tables.size)
    starts_DBIS = _starts(x_DBIT, state_BDN2.flatten(-2).transpose(0, 1), tables)
    y_DBIT = causal_convolution(x_DBIT, tables.kernel_DT[:, None, None]) + _times(starts_DBIS, tables.outputs_DST)
    ends_B = torch.full((batch,), length, device=x_BLD.device) if lengths_B is None else lengths_B
    final_DBS = _after(ends_B, x_DBIT, starts_DBIS, tables)
    return y_DBIT.flatten(-2)[..., :length].permute(1, 2, 0), final_DBS.transpose(0, 1).reshape(state_BDN2.shape)


class _Tables:
    """What tokens and states become within a chunk: `Abar^j Bbar` (D, S, T), `C Abar^(j+1)` transposed (D, S, T), the
    kernel `2 Re(C Abar^j Bbar)` (D, T), and `Abar^(2^i)` transposed, up to the length of a chunk."""

    def __init__(self, decay: Tensor, U: Tensor, V: Tensor, Bbar: Tensor, C: Tensor, length: int) -> None:
        dtype = decay.dtype
        powers = [transition_matrix(decay.double(), U.double(), V.double())]
        inputs, outputs = Bbar.double().flatten(-2)[..., None], powers[0].mT @ readout(C.double())[..., None]
        self.size = _chunk_size(length, states=inputs.shape[-2])
        while inputs.shape[-1] < self.size:
            inputs = torch.cat([inputs, powers[-1] @ inputs], dim=-1)
            outputs = torch.cat([outputs, powers[-1].mT @ outputs], dim=-1)
            powers.append(powers[-1] @ powers[-1])
        self.kernel_DT = (readout(C.double())[:, None] @ inputs)[:, 0].to(dtype)
        self.inputs_DST, self.outputs_DST = inputs.to(dtype), outputs.to(dtype)
        self.powers_DSS = [power.mT.to(dtype) for power in powers]


def _chunk_size(length: int, states: int) -> int:
    """A power of two, at least sqrt(length)."""
    return 1 << math.ceil(math.log2(max(states, math.sqrt(length))))


def _chunks(x_DBL: Tensor, size: int) -> Tensor:
    """(D, B, I, T), filled up with zeros. The last chunk is never full, and may be empty."""
    count = x_DBL.shape[-1] // size + 1
    return torch.nn.functional.pad(x_DBL, (0, count * size - x_DBL.shape[-1])).view(*x_DBL.shape[:2], count, size)


def _starts(x_DBIT: Tensor, state_DBS: Tensor, tables: _Tables) -> Tensor:
    """The states before each chunk."""
    starts = [state_DBS]
    for gained_DBS in _times(x_DBIT.flip(-1), tables.inputs_DST.mT).unbind(2)[:-1]:
        starts.append(torch.baddbmm(gained_DBS, starts[-1], tables.powers_DSS[-1]))
    return torch.stack(starts, dim=2)


def _after(ends_B: Tensor, x_DBIT: Tensor, starts_DBIS: Tensor, tables: _Tables) -> Tensor:
    """The state after that many tokens of each row: from the start of the chunk in which they end, what is left."""
    chunk_B, left_B = ends_B // tables.size, ends_B % tables.size
    last_DBT, state_DBS = (_of_chunk(chunk_B, t) for t in (x_DBIT, starts_DBIS))
    for bit, power_DSS in enumerate(tables.powers_DSS[:-1]):
        state_DBS = torch.where((left_B >> bit & 1).bool()[:, None], state_DBS @ power_DSS, state_DBS)
    latest_DBT = latest_first(last_DBT.transpose(0, 1), left_B).transpose(0, 1)
    return state_DBS + latest_DBT @ tables.inputs_DST.mT


def _of_chunk(chunk_B: Tensor, x_DBIM: Tensor) -> Tensor:
    """(D, B, M), from one chunk of each row."""
    return x_DBIM[:, torch.arange(len(chunk_B), device=x_DBIM.device), chunk_B]


def _times(x_DBIM: Tensor, table_DMN: Tensor) -> Tensor:
    """Products over M, feature by feature. (That `@` would copy the table for every row.)"""
    return (x_DBIM.flatten(1, 2) @ table_DMN).view(*x_DBIM.shape[:3], -1)
