"""Zero-order hold against the matrix exponential that defines it, also where A is next to nothing."""

import pytest
import torch
from torch import Tensor

from ssp_kernels.discretization import bilinear, bilinear_dplr, zero_order_hold

RATES = (0.0, -1e-12, -1e-8, -9.9e-4, -1.1e-3, -0.1, -1.0, -30.0, -1e-4 + 1e-3j, -0.5 + 3j, 5j, 1e-9j)


def _by_matrix_exponential(A: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """The upper row of `exp([[A, B], [0, 0]] dt)` (thesis, equation 33, for a scalar system), in complex128."""
    A, B, dt = (t.to(torch.complex128).expand(dt.shape[0], A.shape[0]) for t in (A, B, dt))
    system = torch.stack([torch.stack([A, B], -1), torch.zeros(*A.shape, 2)], -2) * dt[..., None, None]
    exponential = torch.linalg.matrix_exp(system)
    return exponential[..., 0, 0], exponential[..., 0, 1]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.complex64, 1e-5), (torch.complex128, 1e-12)],
)
def test_it_is_the_matrix_exponential(dtype: torch.dtype, tolerance: float) -> None:
    rates = torch.tensor(RATES, dtype=torch.complex128)
    A = (rates if dtype.is_complex else rates[rates.imag == 0].real).to(dtype)
    B, dt = torch.tensor(2.0, dtype=dtype), torch.tensor([[1e-4], [1.0], [2.0]], dtype=dtype)
    for found, expected in zip(zero_order_hold(A, B, dt), _by_matrix_exponential(A, B, dt), strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.to(torch.complex128), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_near_zero(dtype: torch.dtype) -> None:
    A = torch.tensor([0.0, -1e-8, -9.9e-4, -1.1e-3, -0.5], dtype=dtype, requires_grad=True)
    B = torch.full_like(A, 2.0).requires_grad_()
    dt = torch.ones(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(zero_order_hold, (A, B, dt))


def test_bilinear_solves_its_implicit_equation() -> None:
    """`s_t = s_{t-1} + dt (A (s_t + s_{t-1}) / 2 + B u)`."""
    A, B, u = torch.tensor(RATES, dtype=torch.complex128), torch.tensor(2.0 + 1j, dtype=torch.complex128), 3.0
    before = torch.tensor(0.7 - 0.2j, dtype=torch.complex128)
    for dt in (1e-4, 1.0, 50.0):
        Abar, Bbar = bilinear(A, B, torch.tensor(dt))
        after = Abar * before + Bbar * u
        torch.testing.assert_close(after, before + dt * (A * (after + before) / 2 + B * u), rtol=1e-10, atol=1e-10)


def _dplr(modes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    P, B = torch.randn(2, 3, modes, dtype=torch.complex128)
    A = torch.complex(-torch.rand(3, modes, dtype=torch.float64), 10 * torch.randn(3, modes, dtype=torch.float64))
    return A, P, B, torch.tensor([[1e-4], [1.0], [50.0]], dtype=torch.float64)


def _with_conjugates(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], dim=-1)


def test_bilinear_dplr_solves_its_implicit_equation() -> None:
    A, P, B, dt = _dplr()
    before, u = torch.randn(3, 4, dtype=torch.complex128), 3.0
    decay, U, V, Bbar = bilinear_dplr(A, P, B, dt)
    after = decay * before - U * 2 * (V * before).sum(-1, keepdim=True).real + Bbar * u
    mean = (after + before) / 2
    derivative = A * mean - P * 2 * (P.conj() * mean).sum(-1, keepdim=True).real + B * u
    torch.testing.assert_close(after, before + dt * derivative, rtol=1e-10, atol=1e-10)


def test_bilinear_dplr_is_the_dense_one() -> None:
    """On the states with their conjugates, where the matrix is `diag(A) - P P^*`."""
    A, P, B, dt = _dplr()
    decay, U, V, Bbar = map(_with_conjugates, bilinear_dplr(A, P, B, dt))
    A, P, B = map(_with_conjugates, (A, P, B))
    half = dt[..., None] / 2 * (torch.diag_embed(A) - P[..., :, None] * P.conj()[..., None, :])
    one = torch.eye(8, dtype=torch.complex128)
    found = torch.diag_embed(decay) - U[..., :, None] * V[..., None, :]
    torch.testing.assert_close(found, torch.linalg.solve(one - half, one + half), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(Bbar, dt * torch.linalg.solve(one - half, B[..., None])[..., 0], rtol=1e-10, atol=1e-10)
