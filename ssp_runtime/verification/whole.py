"""A model that reads whole sequences: as it is stored and alone, against converted and in a padded batch."""

import torch
from torch import Tensor

from ssp_runtime.models.batching import padded
from ssp_runtime.models.model import MaskedLanguageModel, WholeSequenceModel
from ssp_runtime.verification.comparison import Differences, Outputs, difference
from ssp_runtime.verification.recorder import recorded


@torch.inference_mode()
def compare_whole(stored: WholeSequenceModel, converted: WholeSequenceModel, ids: list[int]) -> Differences:
    """Runs one on the sequence alone, and the other on it beside a longer one, where it is padded."""
    longer = [*ids, *ids[: len(ids) // 4 + 1]]
    alone, among = _first_row(stored, [ids]), _first_row(converted, [ids, longer])
    return Differences(
        layers=[difference(a, b) for a, b in zip(alone.layers, among.layers, strict=True)],
        logits=difference(alone.logits, among.logits),
        agree=alone.logits.argmax(-1) == among.logits.argmax(-1),
    )


def _first_row(model: WholeSequenceModel, rows: list[list[int]]) -> Outputs:
    """Logits (L, V), or (1, C) of a classifier."""
    with recorded(model) as seen:
        logits = model(*padded(rows))[0].float()
    length, count = len(rows[0]), len(model.backbone.layers)
    layers = [_of_strands(seen[i::count], length) for i in range(count)]
    return Outputs(layers=layers, logits=logits[:length] if isinstance(model, MaskedLanguageModel) else logits[None])


def _of_strands(passes: list[Tensor], length: int) -> Tensor:
    """Of the first row (L, D); a model of both strands reads it twice."""
    return torch.cat([y[0, :length].float() for y in passes], -1)
