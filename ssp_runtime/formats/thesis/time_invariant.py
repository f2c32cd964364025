"""S4 and S4D of the thesis' code: `FFTConvLean` with one of its directions, which has a D and one or two kernels."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.thesis.tensors import Layer, Tensors, branches, divided, under
from ssp_runtime.formats.weights import fitting
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.bidirectional import BidirectionalConfig, TwoSidedConfig
from ssp_runtime.mixers.s4 import S4Coefficients, S4Config, recovered_C
from ssp_runtime.mixers.s4d import S4DConfig


class Direction(NamedTuple):
    """A value of `bi`: the layer around a state space, and its tensors, of D and of kernels by their names."""

    config: Callable[[MixerConfig], MixerConfig]
    tensors: Callable[..., dict[str, Tensor]]


def time_invariant(mode: str, bi: str, d_state: int) -> Layer:
    """The state space of `s4_kwargs`, with its options `mode` and `bi`.

    Raises:
        ArtifactError: they are not supported.
    """
    ssp: S4DConfig | S4Config = S4DConfig(d_state=d_state) if mode in ("diag", "s4d") else S4Config(d_state=d_state)
    if bi == "placebo" and isinstance(ssp, S4DConfig):
        return Layer(replace(ssp, d_state=2 * d_state), partial(_ours, _placebo))
    if bi not in DIRECTIONS:
        raise ArtifactError(f"the thesis' option s4_kwargs.bi={bi!r} with mode={mode!r} is not supported")
    return Layer(DIRECTIONS[bi].config(ssp), partial(_ours, DIRECTIONS[bi].tensors))


def _ours(combined: Callable[..., dict[str, Tensor]], theirs: Tensors) -> dict[str, Tensor]:
    named, rest = divided(theirs, "s4fft.fftconv.")
    kernels = defaultdict[str, dict[str, Tensor]](dict)
    for name, tensor in named.items():
        kernel, _, parameter = name.partition(".")
        kernels[kernel][parameter] = tensor
    D = kernels.pop("D")[""].flatten()
    try:
        return {**combined(D, **kernels), **rest}
    except TypeError as error:
        raise ArtifactError(f"the option s4_kwargs.bi does not go with kernels called {', '.join(kernels)}") from error


def _one_sided(D: Tensor, kernel: Tensors) -> dict[str, Tensor]:
    return {"D": D, **under("coefficients.", _coefficients(kernel))}


def _coefficients(kernel: Tensors) -> dict[str, Tensor]:
    ours = {name: tensor.squeeze(0) if name in ("B", "C", "P") else tensor for name, tensor in kernel.items()}
    if "l_kernel" in ours:  # of DPLR
        l_kernel, (features, modes) = int(ours.pop("l_kernel")), ours["A_real"].shape
        coefficients = S4Coefficients(features, S4Config(d_state=2 * modes))
        with torch.no_grad():
            for name, parameter in coefficients.named_parameters():
                parameter.copy_(fitting(name, ours[name], parameter))
        ours["C"] = recovered_C(coefficients, l_kernel)
    return ours


def _two_sided(D: Tensor, kernel: Tensors) -> dict[str, Tensor]:
    if len(kernel["C"]) != 2:
        raise ArtifactError("s4_kwargs.bi='paper_bi' needs a C for either direction; the checkpoint has one for both")
    past, future = ({**kernel, "C": C} for C in torch.split(kernel["C"], 1))
    return {**under("ssp.", _one_sided(D, past)), "future.C": _coefficients(future)["C"]}


def _sequential(D: Tensor, k1: Tensors, k2: Tensors) -> dict[str, Tensor]:
    return branches(_one_sided(D, k1), _one_sided(torch.zeros_like(D), k2))


def _sequential_tied(D: Tensor, kernel: Tensors) -> dict[str, Tensor]:
    return _sequential(D, kernel, kernel)


def _stacked(D: Tensor, kernel: Tensors) -> dict[str, Tensor]:
    """One kernel of twice the features, of which the second half reads the reversed sequence."""
    first, second = dict(kernel), dict(kernel)
    for name in kernel.keys() - {"l_kernel"}:
        first[name], second[name] = torch.split(kernel[name], len(D), 1 if name in ("B", "C", "P") else 0)
    return _sequential(D, first, second)


def _placebo(D: Tensor, k1: Tensors, k2: Tensors) -> dict[str, Tensor]:
    """The sum of two diagonal state spaces on one input is a state space with the states of both. It takes the steps of
    the first, so that the second's rates and inputs are scaled by the quotient of their steps."""
    log_quotient = k2["inv_dt"] - k1["inv_dt"]
    scaled = {
        "A_real": k2["A_real"] + log_quotient,
        "A_imag": k2["A_imag"] * log_quotient.exp(),
        "B": k2["B"] * log_quotient.exp()[..., None],
        "C": k2["C"],
    }
    dims = {"A_real": 1, "A_imag": 1, "B": 2, "C": 2}
    return _one_sided(D, {**k1, **{name: torch.cat([k1[name], scaled[name]], dim) for name, dim in dims.items()}})


# `half_dim_bi` is not among them: their code for it cannot run.
DIRECTIONS = {
    "": Direction(lambda ssp: ssp, _one_sided),
    "paper_bi": Direction(lambda ssp: TwoSidedConfig(ssp=ssp), _two_sided),
    "sequential_bi": Direction(lambda ssp: BidirectionalConfig(ssp=ssp), _sequential),
    "sequential_bi_tied": Direction(lambda ssp: BidirectionalConfig(ssp=ssp), _sequential_tied),
    "stacked_bi": Direction(lambda ssp: BidirectionalConfig(ssp=ssp), _stacked),
}
