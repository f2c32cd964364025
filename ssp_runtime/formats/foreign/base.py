"""What a format of another program says, and how a model is put together from that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.artifact import Artifact, Description, fingerprint_of
from ssp_runtime.formats.chat_template import chat_template
from ssp_runtime.formats.checkpoint import Checkpoint, Watched
from ssp_runtime.formats.names import Names
from ssp_runtime.formats.vocabulary import vocabulary
from ssp_runtime.formats.weights import fitting
from ssp_runtime.models.blank import blank_model
from ssp_runtime.models.config import ModelConfig
from ssp_runtime.models.model import Model
from ssp_runtime.tokenizers import Tokenizer

Read = Callable[[Checkpoint, str, Tensor], Tensor]  # what takes the place of a tensor of ours, by their name for it


@dataclass(frozen=True, kw_only=True)
class Format:
    """`reads` are tensors of ours that are not theirs as they are, by patterns of our names; of the others, a vector of
    ours may have further dimensions of size one in theirs. `unused` are patterns of their names that hold nothing of
    the model.
    """

    name: str
    fits: Callable[[Checkpoint], bool]
    config: Callable[[Checkpoint], ModelConfig]
    names: Callable[[Checkpoint], Names]
    reads: Mapping[str, Read] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    tokenizer: Callable[[Checkpoint], Tokenizer | None] | None = None  # None: what lies beside the weights
    labels: Callable[[Checkpoint], tuple[str, ...]] = lambda _: ()


def assemble(checkpoint: Checkpoint, how: Format) -> Artifact:
    """The model, in training form. Raises `ArtifactError`."""
    try:
        config = how.config(checkpoint)
        model = blank_model(config)
    except KeyError as error:
        raise ArtifactError(f"{checkpoint.path}: its configuration lacks {error.args[0]}") from error
    except ArtifactError:
        raise
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{checkpoint.path} does not make a model: {error}") from error
    fill(model, checkpoint, how)
    description = Description(
        model=config,
        tokenizer=how.tokenizer(checkpoint) if how.tokenizer else vocabulary(checkpoint, config.embedding),
        labels=how.labels(checkpoint),
        training={"format": how.name},
        chat_template=chat_template(checkpoint.path),
    )
    return Artifact(description=description, model=model.eval(), fingerprint=fingerprint_of(description, model))


@torch.no_grad()
def fill(model: Model, checkpoint: Checkpoint, how: Format) -> None:
    """Copies the checkpoint's tensors into the model, one at a time. Raises `ArtifactError` if one is missing, left
    over, or does not fit."""
    names, used, watched = how.names(checkpoint), set[str](), Watched(checkpoint)
    for name, parameter in model.named_parameters():
        theirs = names.theirs(name)
        read = next((read for pattern, read in how.reads.items() if fnmatchcase(name, pattern)), _as_it_is)
        given = _given(read, watched, theirs, parameter)
        if parameter.ndim == 1 and given.numel() == parameter.numel():
            given = given.flatten()
        parameter.copy_(fitting(theirs, given, parameter))
        used.add(theirs)
    left = [name for name in checkpoint.names() if name not in used | watched.taken]
    extra = [name for name in left if not any(fnmatchcase(name, pattern) for pattern in how.unused)]
    if extra:
        raise ArtifactError(f"{checkpoint.path} holds the tensor {extra[0]}, which {how.name} models do not have")


def _given(read: Read, checkpoint: Checkpoint, theirs: str, wanted: Tensor) -> Tensor:
    try:
        return read(checkpoint, theirs, wanted)
    except (IndexError, RuntimeError) as error:  # it has fewer dimensions than can be rearranged
        raise ArtifactError(f"{theirs}: {checkpoint.shape(theirs)} is given, another shape is wanted") from error


def _as_it_is(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    return checkpoint.read(name)


def of_type(*names: str) -> Callable[[Checkpoint], bool]:
    """What a checkpoint fits whose `config.json` says that it is one of these model types."""
    return lambda checkpoint: checkpoint.config.get("model_type") in names


def required(config: Mapping[str, Any], name: str, wanted: object, otherwise: object) -> None:
    """Raises `ArtifactError` unless a setting of theirs, `otherwise` where it is absent, is what our model does."""
    given = config.get(name, otherwise)
    if given != wanted:
        raise ArtifactError(f"{name} is {given!r} in its configuration; only {wanted!r} can be served")
