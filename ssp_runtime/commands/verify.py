"""`ssp-model verify`."""

import copy
import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ssp_runtime.commands.table import render
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.open import located, read_model
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.verification.comparison import TOLERANCES, compare
from ssp_runtime.verification.peer import NoPeer, compare_with_peer
from ssp_runtime.verification.places import Place, first_parted, places
from ssp_runtime.verification.text import tokens as tokens_of

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
    is installed and has the model. Tells where they part, and exits with 1 if they do.

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
    model, ids = artifact.language_model, tokens_of(artifact, text, tokens)
    comparison = compare(model, _recurrent(model), ids, piece)
    try:
        peer, note = compare_with_peer(path, model, ids[:peer_tokens]), f"on {min(len(ids), peer_tokens)} tokens"
    except NoPeer as error:
        peer, note = {}, f"not compared: {error}"
    found = places(artifact.description.model, comparison, peer)
    print(render(comparison.rows(), _HEADER))
    print(f"\n{render([place.row() for place in found], Place.HEADER)}\n\ntransformers: {note}")
    tolerance = TOLERANCES[next(model.parameters()).dtype]
    print(f"largest difference of logits {comparison.logits.largest:.2e}, tolerance {tolerance:.0e}")
    if parted := first_parted(found, tolerance):
        sys.exit("\n".join(parted))


@torch.inference_mode()
def _recurrent(model: LanguageModel) -> LanguageModel:
    made = copy.deepcopy(model)
    to_recurrent(made)
    return made
