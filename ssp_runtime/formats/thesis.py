"""Checkpoints of the source thesis' own code (Ulbaek, DTU 2024), its `MambaModel` and `S4ClassicModel`."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
)
from ssp_runtime.models.model import Model, build_model


class Rename(NamedTuple):
    """Their name, a regular expression; ours; and the dimensions of size 1 that theirs has and ours has not."""

    theirs: str
    ours: str
    drop: tuple[int, ...] = ()


LAYER = r"backbone.layers.\1"

NAMES = (
    Rename(r"encoder\.(weight|bias)", r"backbone.embedding.\1"),
    Rename(r"norm_f\.(weight|bias)", r"backbone.norm_f.\1"),
    # MambaModel
    Rename(r"layers\.(\d+)\.norm\.(weight|bias)", rf"{LAYER}.residual.norm.\2"),
    Rename(r"layers\.(\d+)\.mixer\.(in_proj|out_proj)\.weight", rf"{LAYER}.mixer.\2.weight"),
    Rename(r"layers\.(\d+)\.mixer\.conv1d\.(weight|bias)", rf"{LAYER}.mixer.inner.conv1d.\2"),
    Rename(r"layers\.(\d+)\.mixer\.A_log", rf"{LAYER}.mixer.inner.ssp.coefficients.A_log"),
    Rename(r"layers\.(\d+)\.mixer\.(D|x_proj\.weight|dt_proj\.weight|dt_proj\.bias)", rf"{LAYER}.mixer.inner.ssp.\2"),
    Rename(r"layers\.(\d+)\.mixer\.s4fft\.fftconv\.D", rf"{LAYER}.mixer.inner.ssp.D", drop=(0, 2)),
    Rename(
        r"layers\.(\d+)\.mixer\.s4fft\.fftconv\.kernel\.(A_real|A_imag|inv_dt)",
        rf"{LAYER}.mixer.inner.ssp.coefficients.\2",
    ),
    Rename(
        r"layers\.(\d+)\.mixer\.s4fft\.fftconv\.kernel\.(B|C)", rf"{LAYER}.mixer.inner.ssp.coefficients.\2", drop=(0,)
    ),
    # S4ClassicModel
    Rename(r"norms\.(\d+)\.(weight|bias)", rf"{LAYER}.residual.norm.\2"),
    Rename(r"layers\.(\d+)\.output_linear\.0\.weight", rf"{LAYER}.mixer.output_linear.weight", drop=(2,)),
    Rename(r"layers\.(\d+)\.output_linear\.0\.bias", rf"{LAYER}.mixer.output_linear.bias"),
    Rename(r"layers\.(\d+)\.s4fft\.fftconv\.D", rf"{LAYER}.mixer.ssp.D", drop=(0, 2)),
    Rename(r"layers\.(\d+)\.s4fft\.fftconv\.kernel\.(A_real|A_imag|inv_dt)", rf"{LAYER}.mixer.ssp.coefficients.\2"),
    Rename(r"layers\.(\d+)\.s4fft\.fftconv\.kernel\.(B|C)", rf"{LAYER}.mixer.ssp.coefficients.\2", drop=(0,)),
)
CLASSIFIER_HEAD = Rename(r"decoder\.(weight|bias)", r"decoder.\1")
LANGUAGE_MODEL_HEAD = Rename(r"decoder\.(weight|bias)", r"lm_head.\1")

# Options that do not change the trained function, and those read below. Any other must be unset.
IRRELEVANT = {"d_input", "d_output", "vocab_size", "dropout", "initializer_cfg", "fused_add_norm", "residual_in_fp32"}
UNDERSTOOD = {
    *("cls", "classification", "d_model", "d_state", "n_layer"),
    *("norm_epsilon", "rms_norm", "prenorm", "layernorm", "s4_kwargs"),
}
DIAGONAL, SELECTIVE = ("diag", "s4d"), "s6"


def load_thesis(state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Model:
    """The model of a checkpoint, in evaluation mode; dropout is not carried over.

    Args:
        state_dict: the tensors of `MambaModel` or `S4ClassicModel`.
        meta: the arguments it was made with, and `cls`, its class: "MambaModel" or "S4ClassicModel", followed by " LM"
            for a language model (or `classification=False`).

    Raises:
        ArtifactError: an option that is not supported, or tensors that are not those of such a model.
    """
    _check_options(meta)
    language_model = not meta.get("classification", not meta["cls"].endswith(" LM"))
    try:
        model = build_model(_config(state_dict, meta, language_model))
    except KeyError as error:
        raise ArtifactError(f"the thesis' checkpoint or its options lack {error}") from error
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the thesis' checkpoint and its options do not make a model: {error}") from error
    table = (*NAMES, LANGUAGE_MODEL_HEAD if language_model else CLASSIFIER_HEAD)
    _assign(model, dict(_renamed(name, tensor, table) for name, tensor in state_dict.items()))
    return model.eval()


def _check_options(meta: Mapping[str, Any]) -> None:
    if _class(meta) not in ("MambaModel", "S4ClassicModel"):
        raise ArtifactError(f"cls must be MambaModel or S4ClassicModel, not {meta.get('cls')!r}")
    if _mode(meta) not in (*DIAGONAL, SELECTIVE):
        raise ArtifactError(f"the thesis' option s4_kwargs.mode={_mode(meta)!r} is not supported")
    for name, value in meta.items():
        if value and name not in IRRELEVANT | UNDERSTOOD:
            raise ArtifactError(f"the thesis' option {name}={value!r} is not supported")
    for name, value in meta.get("s4_kwargs", {}).items():
        # A diagonal kernel has no maximal length, and where it started does not matter.
        if value and name not in ("mode", "init", "l_max"):
            raise ArtifactError(f"the thesis' option s4_kwargs.{name}={value!r} is not supported")


def _class(meta: Mapping[str, Any]) -> str:
    return str(meta.get("cls")).removesuffix(" LM")


def _mode(meta: Mapping[str, Any]) -> str:
    """Which state space; theirs defaults to S6 in the Mamba block and to S4 in the Simple block."""
    default = SELECTIVE if _class(meta) == "MambaModel" else "dplr"
    return str(meta["s4_kwargs"].get("mode", "dplr")) if meta.get("s4_kwargs") else default


def _config(state_dict: Mapping[str, Tensor], meta: Mapping[str, Any], language_model: bool) -> ModelConfig:
    mamba = _class(meta) == "MambaModel"
    rms = meta.get("rms_norm", False) if mamba else not meta.get("layernorm", True)
    norm = NormConfig(kind="rms" if rms else "layer", eps=meta.get("norm_epsilon", 1e-5))
    pre = mamba or meta.get("prenorm", False)
    block = BlockConfig(mixer=_mixer(meta), norm=norm, norm_position="pre" if pre else "post")
    return ModelConfig(
        d_model=meta["d_model"],
        embedding=_embedding(state_dict),
        layers=(block,) * meta["n_layer"],
        head=LanguageModelHeadConfig(tied=False, bias=True)
        if language_model
        else ClassificationHeadConfig(num_classes=len(state_dict["decoder.weight"])),
        final_norm=norm if mamba else None,
    )


def _mixer(meta: Mapping[str, Any]) -> MixerConfig:
    config = S6Config if _mode(meta) == SELECTIVE else S4DConfig
    ssp = config(d_state=meta["d_state"])
    return MambaConfig(ssp=ssp) if _class(meta) == "MambaModel" else SimpleConfig(ssp=ssp)


def _embedding(state_dict: Mapping[str, Tensor]) -> TokenEmbeddingConfig | NumberEmbeddingConfig:
    rows, columns = state_dict["encoder.weight"].shape
    if "encoder.bias" in state_dict:
        return NumberEmbeddingConfig(d_input=columns)
    return TokenEmbeddingConfig(vocab_size=rows)


def _renamed(name: str, tensor: Tensor, table: tuple[Rename, ...]) -> tuple[str, Tensor]:
    for rename in table:
        if match := re.fullmatch(rename.theirs, name):
            if any(tensor.ndim <= d or tensor.shape[d] != 1 for d in rename.drop):
                raise ArtifactError(f"{name}: {tuple(tensor.shape)} is given, with 1 at {rename.drop} is wanted")
            return match.expand(rename.ours), tensor.squeeze(rename.drop) if rename.drop else tensor
    raise ArtifactError(f"the checkpoint holds {name}, which no supported model of the thesis has")


def _assign(model: Model, weights: Mapping[str, Tensor]) -> None:
    own = dict(model.named_parameters())
    if missing := sorted(own.keys() - weights.keys()):
        raise ArtifactError(f"the checkpoint lacks the tensor of {missing[0]} ({len(missing)} missing)")
    if extra := sorted(weights.keys() - own.keys()):
        raise ArtifactError(f"the checkpoint holds a tensor of {extra[0]}, which such a model does not have")
    for name, parameter in own.items():
        if weights[name].shape != parameter.shape:
            raise ArtifactError(f"{name}: {tuple(weights[name].shape)} is given, {tuple(parameter.shape)} is wanted")
        with torch.no_grad():
            parameter.copy_(weights[name])
