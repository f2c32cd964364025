"""The S6 of the thesis' code, its modules `S6MambaModule` and `S6MambaModulePosEmb`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.thesis.tensors import Layer, Tensors, branches, divided, under
from ssp_runtime.mixers.bidirectional import BidirectionalConfig
from ssp_runtime.mixers.rotary_s6 import READERS, RotaryS6Config
from ssp_runtime.mixers.s6 import S6Config

# Of two directions, what is the second's, and what it is called of the first.
SECOND = {
    "A2_log": "A_log",
    "D2": "D",
    **{f"{name}bi.weight": f"{name}.weight" for name in ("B_proj", "C_proj", "dt_proj0", "dt_proj")},
    "dt_projbi.bias": "dt_proj.bias",
}


def s6(d_state: int, both_ways: bool, pos_emb: Mapping[str, Any], i: int) -> Layer:
    """The state space of the i-th layer.

    Raises:
        ArtifactError: an option is not supported.
    """
    ssp = S6Config(d_state=d_state)
    if both_ways:
        return Layer(BidirectionalConfig(ssp=ssp), _both_ways)
    readers = str(pos_emb.get("b_c_dt_x") or "").lower()
    turned = tuple(reader for reader in READERS if reader.lower() in readers)
    if not turned:
        return Layer(ssp, _causal)
    if not _is_turned(i, pos_emb.get("loc", "all")):
        return Layer(ssp, lambda theirs: _causal(divided(theirs, "pos_emb_layer.")[-1]))
    base, l_train, period = pos_emb.get("theta", 10_000.0), pos_emb.get("seq_norm"), pos_emb.get("repeat") or None
    return Layer(RotaryS6Config(ssp=ssp, turned=turned, base=base, l_train=l_train, period=period), _rotary)


def _is_turned(i: int, loc: str) -> bool:
    if loc not in ("all", "first", "everyother"):
        raise ArtifactError(f"the thesis' option pos_emb.loc={loc!r} is not supported")
    return loc == "all" or i == 0 or (loc == "everyother" and i % 2 == 0)


def _causal(theirs: Tensors) -> dict[str, Tensor]:
    """With positions or a second direction theirs makes dt, B and C of three matrices, otherwise of one, as ours."""
    ours = {"coefficients.A_log" if name == "A_log" else name: tensor for name, tensor in theirs.items()}
    if "x_proj.weight" not in theirs:
        ours["x_proj.weight"] = torch.cat([ours.pop(f"{name}.weight") for name in ("dt_proj0", "B_proj", "C_proj")])
    return ours


def _both_ways(theirs: Tensors) -> dict[str, Tensor]:
    """Their second scan reads the first one's bias of dt; its own goes unused."""
    first = {name: tensor for name, tensor in theirs.items() if name not in SECOND}
    second = {name: theirs[of_the_second] for of_the_second, name in SECOND.items()}
    return branches(_causal(first), _causal({**second, "dt_proj.bias": first["dt_proj.bias"]}))


def _rotary(theirs: Tensors) -> dict[str, Tensor]:
    """What they make of theta and of a length to normalize by, or learn, are frequencies in the end."""
    frequencies, rest = divided(theirs, "pos_emb_layer.pos_emb_layer.freqs")
    return {"rotation.frequencies": frequencies[""], **under("ssp.", _causal(rest))}
