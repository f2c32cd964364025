"""HGRN and HGRN2 as flash-linear-attention saves them (`model_type` "hgrn", "hgrn2")."""

import re
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.foreign.fla.common import TIED, named, norm_eps, with_mlps
from ssp_runtime.formats.weights import fitting
from ssp_runtime.mixers.hgrn import HGRNConfig
from ssp_runtime.mixers.hgrn2 import HGRN2Config
from ssp_runtime.models.config import ModelConfig

BOUNDS = "model.lower_bounds"  # what makes the bounds of all layers but the first, which has none


def _of(mixer: Callable[[Checkpoint], HGRNConfig | HGRN2Config]) -> Callable[[Checkpoint], ModelConfig]:
    def config(checkpoint: Checkpoint) -> ModelConfig:
        required(checkpoint.config, "use_short_conv", False, False)
        required(checkpoint.config, "elementwise_affine", True, True)
        first, num_layers = mixer(checkpoint), checkpoint.config["num_hidden_layers"]
        other = replace(first, lower_bound="learned") if checkpoint.config.get("use_lower_bound", True) else first
        return with_mlps(checkpoint, (first, *(other,) * (num_layers - 1)))

    return config


def _hgrn(checkpoint: Checkpoint) -> HGRNConfig:
    return HGRNConfig(expand=checkpoint.config.get("expand_ratio", 1), norm_eps=norm_eps(checkpoint))


def _hgrn2(checkpoint: Checkpoint) -> HGRN2Config:
    """Its norm has the default eps, whatever `norm_eps` says."""
    config = checkpoint.config
    return HGRN2Config(expand_ratio=config.get("expand_ratio") or config["hidden_size"] // config["num_heads"])


def _projections(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    """Those of inputs, forget gates and output gates, one below the other; the name is that of the inputs'."""
    return torch.cat([checkpoint.read(name.replace("i_proj", part)) for part in ("i_proj", "f_proj", "g_proj")])


def _logits(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """Of a layer's bounds: the sum of its share, in a softmax over the layers, and of those before it but the first."""
    layer = int(re.findall(r"\d+", name)[0])
    all_layers = wanted.new_empty(checkpoint.config["num_hidden_layers"], len(wanted))
    shares = fitting(BOUNDS, checkpoint.read(BOUNDS), all_layers).float().softmax(0)
    return torch.logit(shares[1 : layer + 1].sum(0))


OURS = {"norm.": "g_norm.", "out_proj.": "o_proj.", "in_proj.": "i_proj.", "": ""}

FLA_HGRN = Format(
    name="fla hgrn",
    fits=of_type("hgrn"),
    config=_of(_hgrn),
    names=lambda _: named(OURS),
    reads={"*.mixer.in_proj.weight": _projections, "*.logits": _logits},
    unused=(*TIED, BOUNDS),
)
FLA_HGRN2 = Format(
    name="fla hgrn2",
    fits=of_type("hgrn2"),
    config=_of(_hgrn2),
    names=lambda _: named(OURS),
    reads={"*.logits": _logits},
    unused=(*TIED, BOUNDS),
)
