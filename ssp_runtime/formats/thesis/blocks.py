"""The blocks of the thesis' code around its state spaces, as ours."""

from functools import partial

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.thesis.tensors import Layer, Tensors, branches, divided, under
from ssp_runtime.mixers.bidirectional import (
    BidirectionalConfig,
    BidirectionalMambaConfig,
    WholeMambaConfig,
    WholeSimpleConfig,
)
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.simple import SimpleConfig


def mamba(ssp: Layer) -> Layer:
    """Its only convolution is causal, also before a state space that reads both ways."""
    if ssp.is_causal:
        return Layer(MambaConfig(ssp=ssp.config), partial(_mamba, ssp, "inner."))
    return Layer(WholeMambaConfig(ssp=ssp.config), partial(_mamba, ssp, ""))


def _mamba(ssp: Layer, inner: str, theirs: Tensors) -> dict[str, Tensor]:
    in_proj, out_proj, convolution, rest = divided(theirs, "in_proj.", "out_proj.", "conv1d.")
    projections = under("in_proj.", in_proj) | under("out_proj.", out_proj)
    return projections | under(f"{inner}conv1d.", convolution) | under(f"{inner}ssp.", ssp.tensors(rest))


def two_mambas(ssp: Layer, tied: bool) -> Layer:
    """The option `bi_module`: two blocks, the second on the reversed sequence. If they share their projections they are
    the block of the thesis' figure 16 (F1)."""
    if tied:
        return Layer(BidirectionalMambaConfig(ssp=ssp.config), partial(_two_tied_mambas, ssp))
    return Layer(BidirectionalConfig(ssp=MambaConfig(ssp=ssp.config)), partial(_two_mambas, ssp))


def _two_mambas(ssp: Layer, theirs: Tensors) -> dict[str, Tensor]:
    forward, backward, rest = divided(theirs, "forward_model.", "backward_model.")
    return branches(*(_mamba(ssp, "inner.", block) for block in (forward, backward))) | rest


def _two_tied_mambas(ssp: Layer, theirs: Tensors) -> dict[str, Tensor]:
    forward, backward, rest = divided(theirs, "forward_model.", "backward_model.")
    for name in ("in_proj.weight", "out_proj.weight"):
        if not torch.equal(forward[name], backward.pop(name)):
            raise ArtifactError(f"the two {name} differ, which the option bi_module.tie_linear_proj says are one")
    return _mamba(ssp, "forward_branch.", forward) | _mamba(ssp, "backward_branch.", backward) | rest


def simple(ssp: Layer) -> Layer:
    kind = SimpleConfig if ssp.is_causal else WholeSimpleConfig
    return Layer(kind(ssp=ssp.config), partial(_simple, ssp))


def _simple(ssp: Layer, theirs: Tensors) -> dict[str, Tensor]:
    linear, rest = divided(theirs, "output_linear.0.")
    ours = {name: tensor.squeeze(-1) if name == "weight" else tensor for name, tensor in linear.items()}
    return under("output_linear.", ours) | under("ssp.", ssp.tensors(rest))
