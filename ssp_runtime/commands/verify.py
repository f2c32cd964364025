"""`ssp-model verify`."""

import copy
import sys
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import tyro

from ssp_runtime.commands.table import render
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.open import located, read_model
from ssp_runtime.models.model import LanguageModel, WholeSequenceModel
from ssp_runtime.verification.comparison import TOLERANCES, Differences, compare
from ssp_runtime.verification.peer import NoPeer, compare_with_peer
from ssp_runtime.verification.places import Place, first_parted, places
from ssp_runtime.verification.text import tokens as tokens_of
from ssp_runtime.verification.whole import compare_whole

_WHOLE = "the converted form, in a padded batch,"
_WHOLE_HEADER = ("after", "largest number", "alone - converted, in a batch")
Model = TypeVar("Model", bound=LanguageModel | WholeSequenceModel)
_HEADER = ("tokens", "max |difference|", "top-1 agreement", "bits parallel", "bits recurrent")


def verify(
    source: Annotated[str, tyro.conf.Positional],
    *,
    text: Path | None = None,
    tokens: int = 4096,
    piece: int = 1000,
    peer_tokens: int = 128,
) -> None:
    """Compares a model's parallel and recurrent forms on real text, layer by layer, and with `transformers` where that
    is installed and has the model. A model that reads whole sequences, which has no recurrent form, is compared with
    itself converted and in a padded batch. Tells where they part, and exits with 1 if they do.

    Args:
        source: the model: a folder, a file of another program, or OWNER/NAME on the Hugging Face hub.
        text: a text file to run it on (UTF-8); without it, a text that comes with this program.
        tokens: how many of its tokens.
        piece: cut the parallel run into pieces of this many tokens, the state handed on.
        peer_tokens: how many of the tokens `transformers` gets; 0 leaves it out.
    """
    if tokens < 2 or piece < 1:
        raise InvalidRequest(f"--tokens is at least 2 and --piece at least 1; {tokens} and {piece} are given")
    path = located(source, pickles=True)
    artifact = read_model(path, pickles=True)
    ids = tokens_of(artifact, text, tokens)
    if isinstance(artifact.model, WholeSequenceModel):
        _verify_whole(artifact, artifact.model, ids)
        return
    model = artifact.language_model
    comparison = compare(model, _recurrent(model), ids, piece)
    try:
        peer, note = compare_with_peer(path, model, ids[:peer_tokens]), f"on {min(len(ids), peer_tokens)} tokens"
    except NoPeer as error:
        peer, note = {}, f"not compared: {error}"
    found = places(artifact.description.model, comparison, peer)
    print(render(comparison.rows(), _HEADER))
    print(f"\n{render([place.row() for place in found], Place.HEADER)}\n\ntransformers: {note}")
    _conclude(found, comparison, model)


def _verify_whole(artifact: Artifact, model: WholeSequenceModel, ids: list[int]) -> None:
    comparison = compare_whole(model, _recurrent(model), ids)
    found = places(artifact.description.model, comparison, {})
    print(f"{len(ids)} tokens\n\n{render([place.row()[:3] for place in found], _WHOLE_HEADER)}\n")
    _conclude(found, comparison, model, _WHOLE)


def _conclude(found: list[Place], comparison: Differences, model: torch.nn.Module, *other: str) -> None:
    """Exits with 1 if the forms part."""
    tolerance = TOLERANCES[next(model.parameters()).dtype]
    print(f"largest difference of logits {comparison.logits.largest:.2e}, tolerance {tolerance:.0e}")
    if parted := first_parted(found, tolerance, *other):
        sys.exit("\n".join(parted))


@torch.inference_mode()
def _recurrent(model: Model) -> Model:
    made = copy.deepcopy(model)
    to_recurrent(made)
    return made
