"""`linear_attention` in Triton for GPUs, float32 and float64: pieces of a prompt, and steps.

One program runs one head of one row and a group of its value features: that part of the state stays in registers while
the tokens pass by. A step is a piece of one token. Where gradients are wanted, chunks of matrix products do better
(`torch_form`).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssp_kernels import triton_support
from ssp_kernels.gradients import needs_grad
from ssp_kernels.linear_attention import torch_form

_ELEMENTS = 4096  # of the state, in the registers of a program


def check() -> None:
    """Raises `Unavailable` with the reason where the kernel cannot run."""

    def launch(one: Tensor) -> Tensor:
        one = one.view(1, 1, 1, 1)
        return _launch(one, one, one, one, None, state=one, new=one.clone())

    triton_support.check(launch)


def forward(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    log_decay_BLHK: Tensor,
    bonus_HK: Tensor | None,
    state_BHKV: Tensor,
) -> tuple[Tensor, Tensor]:
    sequences = (q_BLHK, k_BLHK, v_BLHV, log_decay_BLHK)
    if needs_grad(*sequences, bonus_HK, state_BHKV) or not _supported(*sequences, bonus_HK, state_BHKV):
        return torch_form.forward(*sequences, bonus_HK, state_BHKV)
    new = torch.empty_like(state_BHKV, memory_format=torch.contiguous_format)
    return _launch(*sequences, bonus_HK, state_BHKV, new), new


def step(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHV: Tensor,
    log_decay_BHK: Tensor,
    bonus_HK: Tensor | None,
    state_BHKV: Tensor,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    token = (q_BHK, k_BHK, v_BHV, log_decay_BHK)
    if needs_grad(*token, bonus_HK, state_BHKV) or not _supported(*token, bonus_HK, state_BHKV):
        return torch_form.step(*token, bonus_HK, state_BHKV, out)
    new = torch.empty_like(state_BHKV, memory_format=torch.contiguous_format) if out is None else out
    q, k, v, log_decay = (t[:, None] for t in token)
    return _launch(q, k, v, log_decay, bonus_HK, state_BHKV, new)[:, 0], new


def _supported(*tensors: Tensor | None) -> bool:
    return triton_support.supported(*tensors) and all(t is None or t.numel() for t in tensors)


def _launch(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor | None, state: Tensor, new: Tensor
) -> Tensor:
    """y. The last state is written to `new`, which like `state` may be strided."""
    (batch, length, heads, keys), values, decays = q.shape, v.shape[-1], log_decay.shape[-1]
    assert k.shape == q.shape and v.shape[:3] == log_decay.shape[:3] == q.shape[:3] and decays in (1, keys)
    assert new.shape == state.shape == (batch, heads, keys, values) and new.dtype == state.dtype
    q, k, v, log_decay = (t.contiguous() for t in (q, k, v, log_decay))
    y = torch.empty_like(v)
    padded = triton.next_power_of_2(keys)
    group = max(1, min(triton.next_power_of_2(values), _ELEMENTS // padded))
    with triton_support.on_device_of(q):
        _piece_kernel[(batch, heads, triton.cdiv(values, group))](
            q, k, v, log_decay, q if bonus is None else bonus.contiguous(), y,
            state, *state.stride(), new, *new.stride(), L=length, H=heads, K=keys, V=values,
            DECAYS=decays, BONUS=bonus is not None, KEYS=padded, VALUES=group, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return y


@triton.jit(do_not_specialize=["L"])  # type: ignore[untyped-decorator]  # triton has no types
def _piece_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    log_decay: tl.tensor,
    bonus: tl.tensor,
    y: tl.tensor,
    initial: tl.tensor,
    initial_stride_b: tl.tensor,
    initial_stride_h: tl.tensor,
    initial_stride_k: tl.tensor,
    initial_stride_v: tl.tensor,
    final: tl.tensor,
    final_stride_b: tl.tensor,
    final_stride_h: tl.tensor,
    final_stride_k: tl.tensor,
    final_stride_v: tl.tensor,
    L: tl.tensor,
    H: tl.tensor,
    K: tl.constexpr,
    V: tl.constexpr,
    DECAYS: tl.constexpr,
    BONUS: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
) -> None:
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = tl.arange(0, KEYS)
    j = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    in_i, in_j = i < K, j < V
    in_ij = in_i[:, None] & in_j[None, :]
    from_ij = row * initial_stride_b + head * initial_stride_h
    from_ij += i[:, None] * initial_stride_k + j[None, :] * initial_stride_v
    to_ij = row * final_stride_b + head * final_stride_h + i[:, None] * final_stride_k + j[None, :] * final_stride_v
    state_ij = tl.load(initial + from_ij, mask=in_ij, other=0.0)
    for t in range(L):
        at = (row * L + t) * H + head
        q_i = tl.load(q + at * K + i, mask=in_i, other=0.0)
        k_i = tl.load(k + at * K + i, mask=in_i, other=0.0)
        v_j = tl.load(v + at * V + j, mask=in_j, other=0.0)
        decay_i = tl.exp(tl.load(log_decay + at * DECAYS + i % DECAYS, mask=in_i, other=0.0))
        written_ij = k_i[:, None] * v_j[None, :]
        if BONUS:
            bonus_i = tl.load(bonus + head * K + i, mask=in_i, other=0.0)
            read_ij = state_ij + bonus_i[:, None] * written_ij
        state_ij = decay_i[:, None] * state_ij + written_ij
        if not BONUS:
            read_ij = state_ij
        tl.store(y + at * V + j, tl.sum(q_i[:, None] * read_ij, axis=0), mask=in_j)
    tl.store(final + to_ij, state_ij, mask=in_ij)
