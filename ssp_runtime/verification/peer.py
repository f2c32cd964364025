"""The same checkpoint in `transformers`."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ssp_runtime.formats.open import is_ours
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.verification.comparison import Difference, Outputs, difference, in_parallel
from ssp_runtime.verification.places import LOGITS


class NoPeer(Exception):
    """It cannot be compared with; the message says why."""


@torch.inference_mode()
def compare_with_peer(path: Path, model: LanguageModel, ids: list[int]) -> dict[int, Difference]:
    """Our parallel form against its full forward without cache, by layer of ours, and `LOGITS`.

    Raises:
        NoPeer: `transformers` is not installed, or has no such model.
    """
    if not ids:
        raise NoPeer("--peer-tokens is 0")
    theirs = _outputs(_load(path), torch.tensor([ids]))
    ours, _ = in_parallel(model, torch.tensor([ids]), model.initial_state(1))
    found = {LOGITS: difference(ours.logits, theirs.logits)}
    several, rest = divmod(len(ours.layers), len(theirs.layers))  # layers of ours in one of theirs
    if rest == 0:
        last = range(several - 1, len(ours.layers), several)
        found |= {i: difference(ours.layers[i], y) for i, y in zip(last, theirs.layers, strict=True)}
    return found


def _outputs(model: nn.Module, inputs: Tensor) -> Outputs:
    """Their blocks are the first list of modules that the model has."""
    seen: list[Tensor] = []
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    for block in blocks:
        block.register_forward_hook(lambda _module, _inputs, y: seen.append(y[0] if isinstance(y, tuple) else y))
    logits = model(inputs, use_cache=False).logits
    return Outputs(layers=[y[0] for y in seen], logits=logits[0])


def _load(path: Path) -> nn.Module:
    if find_spec("transformers") is None:
        raise NoPeer("it is not installed")
    if is_ours(path) or not path.is_dir():
        raise NoPeer("it does not read this kind of file")
    from transformers import AutoModelForCausalLM

    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # whatever goes wrong there
        raise NoPeer(f"it cannot load this: {error}") from error
    return model.eval()
