"""A folder as Caduceus' authors publish their models, with the weights of an oracle."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import oracles
from tests.ssp_runtime.formats.foreign_harness import CONFIG, WEIGHTS

PH, PS = "ph_fused1_add", "ps_fused1_add"
COMPLEMENT = torch.tensor([0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15])


def write_caduceus(
    folder: Path, entry: str, num_blocks: int = 2, score: Tensor | None = None, *, both_strands: bool = True
) -> Path:
    """Of an entry's model, or of its first blocks; as a classifier where there is a `score`, and then of -Ph of
    `both_strands` or one."""
    oracle = oracles.entry("caduceus", entry)
    tensors = {
        name: tensor.contiguous()
        for name, tensor in oracle["state_dict"].items()
        if num_blocks > 1 or ".layers.1." not in name
    }
    if score is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if "lm_head" not in name}
        tensors["score.weight"] = score
    complement = dict(enumerate(COMPLEMENT.tolist())) if both_strands else None
    settings = {**oracle["config"], "model_type": "caduceus", "n_layer": num_blocks, "complement_map": complement}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / WEIGHTS)
    return folder


def other_strand(ids_BL: Tensor) -> Tensor:
    return COMPLEMENT[ids_BL].flip(1)
