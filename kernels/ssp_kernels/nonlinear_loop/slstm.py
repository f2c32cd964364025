"""sLSTM, the LSTM with exponential gates (Beck et al., 2024, "xLSTM: Extended Long Short-Term Memory").

Shape suffixes: B batch, H heads, G the four gates, K features of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_kernels import stabilizer
from ssp_kernels.nonlinear_loop import NonlinearLoop


def _cell(
    x_BHGK: Tensor, R_HKGK: Tensor, c_BHK: Tensor, n_BHK: Tensor, h_BHK: Tensor, m_BHK: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`c_t = f_t c_{t-1} + i_t tanh(z_t)`, `n_t = f_t n_{t-1} + i_t`, `h_t = sigmoid(o_t) c_t / n_t` with `i = exp`,
    `f = sigmoid` of the gates i, f, z, o of `x_t + R h_{t-1}`; c and n relative to exp(m) (equations 8 to 17)."""
    i, f, z, o = (x_BHGK + torch.einsum("bhk,hkgj->bhgj", h_BHK, R_HKGK)).unbind(-2)
    gates, m_BHK = stabilizer.step(i, F.logsigmoid(f), m_BHK)
    kept, written = gates[..., 0].exp(), gates[..., 1].exp()
    c_BHK = kept * c_BHK + written * torch.tanh(z)
    n_BHK = kept * n_BHK + written
    h_BHK = torch.sigmoid(o) * c_BHK / n_BHK.clamp(min=1)  # it is at least 1, unless nothing was written yet
    return h_BHK, (c_BHK, n_BHK, h_BHK, m_BHK)


# Takes gates before their nonlinearities (B, L, H, 4, K), recurrent weights (H, K, 4, K), and c, n, h, m (B, H, K),
# which start at 0, 0, 0 and minus infinity; gives h.
slstm = NonlinearLoop(_cell)
