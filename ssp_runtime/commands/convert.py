"""`ssp-model convert`."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from ssp_runtime.commands.inspect import inspect
from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.formats import artifact
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.open import read_model
from ssp_runtime.formats.vocabulary import vocabulary_from
from ssp_runtime.models.model import WholeSequenceModel
from ssp_runtime.verification.comparison import TOLERANCES, Differences, compare
from ssp_runtime.verification.text import tokens as tokens_of
from ssp_runtime.verification.whole import compare_whole

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PIECE = 256


def convert(
    source: Annotated[str, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    *,
    dtype: Dtype = "float32",
    tokenizer: str | None = None,
    group_norm_eps: float | None = None,
    verify: bool = False,
    text: Path | None = None,
    tokens: int = 1024,
) -> None:
    """Converts a model to recurrent form: the folder that `ssp-server serve` loads.

    Args:
        source: folder of a trained model; folder or file of another program; or OWNER/NAME on the Hugging Face hub.
        target: folder to write.
        dtype: of the weights; coefficients of recurrences and what states add up stay float32.
        tokenizer: the vocabulary, where the source lacks it: a tokenizer.json, RWKV's vocabulary file, or bytes, dna or
            hyenadna.
        group_norm_eps: of RWKV's norms of heads, where it is not 64e-5: the files do not record it.
        verify: compare with the source's parallel form before anything is written, and record the result; what reads
            whole sequences is compared with the source alone, and in a padded batch.
        text: what to compare on (UTF-8); without it, a text that comes with this program.
        tokens: how many of its tokens.
    """
    if tokens < 2:
        raise InvalidRequest(f"--tokens is at least 2, not {tokens}")
    found = read_model(source, pickles=True, group_norm_eps=group_norm_eps)
    if found.description.form == "recurrent":
        raise InvalidRequest(f"{source} is in recurrent form already")
    if tokenizer is not None:
        found = replace(found, description=replace(found.description, tokenizer=vocabulary_from(tokenizer)))
    trained = copy.deepcopy(found) if verify else found
    made = _recurrent(found, DTYPES[dtype])
    if verify:
        made = _verified(trained, made, tokens_of(trained, text, tokens))
    artifact.save(target, made.model, made.description)
    inspect(str(target))


def _recurrent(found: Artifact, dtype: torch.dtype) -> Artifact:
    """The same model, changed in place."""
    to_recurrent(found.model)
    return replace(found, model=found.model.to(dtype), description=replace(found.description, form="recurrent"))


def _verified(trained: Artifact, made: Artifact, ids: list[int]) -> Artifact:
    """With the comparison in its description. Raises `ArtifactError` if the two part."""
    comparison = _compared(trained, made, ids)
    dtype = next(made.model.parameters()).dtype
    at = comparison.logits.parts_at(TOLERANCES[dtype])
    if at is not None:
        raise ArtifactError(
            f"in {dtype} the recurrent form parts from the trained one at token {at}, by up to"
            f" {comparison.logits.largest:.2e}; nothing was written: take a wider --dtype"
        )
    report = {"dtype": str(dtype).removeprefix("torch."), **comparison.report()}
    training = {**made.description.training, "verification": report}
    print(f"verified on {report['tokens']} tokens: largest difference of logits {comparison.logits.largest:.2e}\n")
    return replace(made, description=replace(made.description, training=training))


def _compared(trained: Artifact, made: Artifact, ids: list[int]) -> Differences:
    if isinstance(trained.model, WholeSequenceModel) and isinstance(made.model, WholeSequenceModel):
        return compare_whole(trained.model, made.model, ids)
    return compare(trained.language_model, made.language_model, ids, _PIECE)
