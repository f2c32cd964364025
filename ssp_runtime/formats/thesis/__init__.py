"""Checkpoints of the source thesis' own code (Ulbaek, DTU 2024), its `MambaModel` and `S4ClassicModel`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.thesis import options
from ssp_runtime.formats.thesis.blocks import mamba, simple, two_mambas
from ssp_runtime.formats.thesis.options import SELECTIVE, class_of, direction_of, mode_of
from ssp_runtime.formats.thesis.s6 import s6
from ssp_runtime.formats.thesis.tensors import Layer, divided, under
from ssp_runtime.formats.thesis.time_invariant import time_invariant
from ssp_runtime.formats.weights import fitting
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


def load_thesis(state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Model:
    """The model of a checkpoint, in evaluation mode; dropout is not carried over.

    Args:
        state_dict: the tensors of `MambaModel` or `S4ClassicModel`.
        meta: the arguments it was made with, and `cls`, its class: "MambaModel" or "S4ClassicModel", followed by " LM"
            for a language model (or `classification=False`).

    Raises:
        ArtifactError: an option that is not supported, or tensors that are not those of such a model.
    """
    options.check(meta)
    language_model = not meta.get("classification", not meta["cls"].endswith(" LM"))
    try:
        layers = [_layer(meta, i) for i in range(meta["n_layer"])]
        model = build_model(_config(state_dict, meta, layers, language_model))
        weights = _weights(state_dict, layers, "lm_head." if language_model else "decoder.")
    except ArtifactError:
        raise
    except KeyError as error:
        raise ArtifactError(f"the thesis' checkpoint or its options lack {error}") from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"the thesis' checkpoint and its options do not make a model: {error}") from error
    _assign(model, weights)
    return model.eval()


def _layer(meta: Mapping[str, Any], i: int) -> Layer:
    halves = meta.get("bi_module") or {}
    d_state = int(meta["d_state"] * halves.get("d_state_scale", 1))
    if mode_of(meta) == SELECTIVE:
        ssp = s6(d_state, bool(meta.get("bi_s6")), meta.get("pos_emb") or {}, i)
    else:
        ssp = time_invariant(mode_of(meta), direction_of(meta), d_state)
    if halves:
        return two_mambas(ssp, tied=bool(halves.get("tie_linear_proj")))
    return mamba(ssp) if class_of(meta) == "MambaModel" else simple(ssp)


def _config(
    state_dict: Mapping[str, Tensor], meta: Mapping[str, Any], layers: Sequence[Layer], language_model: bool
) -> ModelConfig:
    is_mamba = class_of(meta) == "MambaModel"
    rms = meta.get("rms_norm", False) if is_mamba else not meta.get("layernorm", True)
    norm = NormConfig(kind="rms" if rms else "layer", eps=meta.get("norm_epsilon", 1e-5))
    pre = is_mamba or meta.get("prenorm", False)
    return ModelConfig(
        d_model=int(meta["d_model"] * (meta.get("bi_module") or {}).get("d_model_scale", 1)),
        embedding=_embedding(state_dict),
        layers=tuple(
            BlockConfig(mixer=layer.config, norm=norm, norm_position="pre" if pre else "post") for layer in layers
        ),
        head=LanguageModelHeadConfig(tied=False, bias=True)
        if language_model
        else ClassificationHeadConfig(num_classes=len(state_dict["decoder.weight"])),
        final_norm=norm if is_mamba else None,
    )


def _embedding(state_dict: Mapping[str, Tensor]) -> TokenEmbeddingConfig | NumberEmbeddingConfig:
    rows, columns = state_dict["encoder.weight"].shape
    if "encoder.bias" in state_dict:
        return NumberEmbeddingConfig(d_input=columns)
    return TokenEmbeddingConfig(vocab_size=rows)


def _weights(state_dict: Mapping[str, Tensor], layers: Sequence[Layer], head: str) -> dict[str, Tensor]:
    """The tensors under our names. Those without a place keep theirs."""
    encoder, norm_f, decoder, rest = divided(state_dict, "encoder.", "norm_f.", "decoder.")
    ours = under("backbone.embedding.", encoder) | under("backbone.norm_f.", norm_f) | under(head, decoder)
    for i, layer in enumerate(layers):
        theirs, block = f"layers.{i}.", f"backbone.layers.{i}."
        norm, classic_norm, mixer, classic, rest = divided(
            rest, f"{theirs}norm.", f"norms.{i}.", f"{theirs}mixer.", theirs
        )
        ours |= under(f"{block}residual.norm.", norm | classic_norm)
        try:
            ours |= under(f"{block}mixer.", layer.tensors(mixer | classic))
        except KeyError as error:
            raise ArtifactError(f"the checkpoint lacks {error} in {theirs}") from error
        except (IndexError, RuntimeError) as error:
            raise ArtifactError(f"the shapes of the tensors in {theirs} do not go together: {error}") from error
    return ours | rest


def _assign(model: Model, weights: Mapping[str, Tensor]) -> None:
    own = dict(model.named_parameters())
    if missing := sorted(own.keys() - weights.keys()):
        raise ArtifactError(f"the checkpoint lacks the tensor of {missing[0]} ({len(missing)} missing)")
    if extra := sorted(weights.keys() - own.keys()):
        raise ArtifactError(f"the checkpoint holds a tensor of {extra[0]}, which such a model does not have")
    for name, parameter in own.items():
        with torch.no_grad():
            parameter.copy_(fitting(name, weights[name], parameter))
