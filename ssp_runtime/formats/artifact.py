"""Our model folder: `config.json` (everything that is no tensor) and `model.safetensors`.

config.json holds: format_version, form ("training" or "recurrent"), model (see `models.config`), tokenizer, labels,
description, training (how it came to be, free form), perhaps chat_template, and fingerprint: SHA-256 over all of that
and the weights. A tokenizer that comes in a file has it beside config.json, which holds its SHA-256; so has a chat
template. A file that changed since it was written, by one bit, is refused.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import InstanceOf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssp_runtime import tokenizers
from ssp_runtime.chat.template import ChatTemplate
from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.json_file import CONFIG_FILE, read_json
from ssp_runtime.formats.weights import fitting
from ssp_runtime.mixers.base import validated
from ssp_runtime.models import config as model_config
from ssp_runtime.models.blank import blank_model
from ssp_runtime.models.config import EmbeddingConfig, ModelConfig, NumberEmbeddingConfig, TokenEmbeddingConfig
from ssp_runtime.models.model import (
    CausalModel,
    Classifier,
    LanguageModel,
    MaskedLanguageModel,
    Model,
    SequenceRegressor,
)
from ssp_runtime.tokenizers import Tokenizer

FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"

Form = Literal["training", "recurrent"]
Kind = TypeVar("Kind", LanguageModel, SequenceRegressor, Classifier, MaskedLanguageModel)
_ABILITIES: dict[type[Model], str] = {
    LanguageModel: "generate",
    SequenceRegressor: "predict numbers",
    Classifier: "classify",
    MaskedLanguageModel: "fill in masked tokens",
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an artifact says of itself besides its weights. `labels` name a classifier's classes, in order."""

    model: ModelConfig
    form: Form = "training"
    tokenizer: InstanceOf[Tokenizer] | None = None
    labels: tuple[str, ...] = ()
    description: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    chat_template: InstanceOf[ChatTemplate] | None = None

    def __post_init__(self) -> None:
        """Raises `ArtifactError` unless the model has an embedding for every id of the tokenizer."""
        if self.tokenizer is None or not isinstance(self.model.embedding, TokenEmbeddingConfig):
            return
        given, wanted = self.tokenizer.vocab_size, self.model.embedding.vocab_size
        if given > wanted:
            raise ArtifactError(f"the vocabulary has {given} ids, the model {wanted}; it is that of another model")

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "form": self.form,
            "model": model_config.to_json(self.model),
            "tokenizer": None if self.tokenizer is None else self.tokenizer.to_json(),
            "labels": list(self.labels),
            "description": self.description,
            "training": self.training,
            **({} if self.chat_template is None else {"chat_template": self.chat_template.to_json()}),
        }

    @property
    def files(self) -> dict[str, bytes]:
        """What is stored beside `config.json`, by name."""
        parts = [part for part in (self.tokenizer, self.chat_template) if part is not None]
        return {name: contents for part in parts for name, contents in part.files.items()}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A loaded model folder."""

    description: Description
    model: Model
    fingerprint: str

    @property
    def language_model(self) -> LanguageModel:
        return self._of_kind(LanguageModel)

    @property
    def sequence_regressor(self) -> SequenceRegressor:
        return self._of_kind(SequenceRegressor)

    @property
    def classifier(self) -> Classifier:
        return self._of_kind(Classifier)

    @property
    def masked_language_model(self) -> MaskedLanguageModel:
        return self._of_kind(MaskedLanguageModel)

    def _of_kind(self, kind: type[Kind]) -> Kind:
        if not isinstance(self.model, kind):
            raise InvalidRequest(f"this model is made to {_ABILITIES[type(self.model)]}; it cannot {_ABILITIES[kind]}")
        return self.model

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Runs the model once, so that no request waits for kernels to be compiled."""
        inputs = _zeros(2, self.description.model.embedding).to(next(self.model.parameters()).device)
        if isinstance(self.model, CausalModel):
            state = self.model.fold(inputs, self.model.initial_state(1))
            self.model.step(inputs[:, 0], state, out=state)
        else:
            self.model(inputs)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def save(folder: Path, model: Model, description: Description) -> str:
    """Writes the folder, which is made if need be; returns the fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in _unique_tensors(model).items()}
    fingerprint = _fingerprint(description.to_json(), weights)
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors lets nobody else read it
    text = json.dumps({**description.to_json(), "fingerprint": fingerprint}, indent=2, ensure_ascii=False)
    for name, contents in description.files.items():
        (folder / name).write_bytes(contents)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    return fingerprint


def fingerprint_of(description: Description, model: Model) -> str:
    """SHA-256 of what the model is and of its weights."""
    return _fingerprint(description.to_json(), _unique_tensors(model))


def load(folder: Path) -> Artifact:
    """Reads and checks the folder. Nothing in it is run.

    Raises:
        ArtifactError: a file is missing, damaged, or not what the configuration says.
    """
    data = read_json(folder / CONFIG_FILE)
    if data.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(f"{folder} is not of format version {FORMAT_VERSION}, the one this program reads")
    description = _parse(data, folder)
    weights = _read_weights(folder)
    if _fingerprint(data, weights) != data.get("fingerprint"):
        raise ArtifactError(f"{folder} was changed after it was written: its fingerprint does not match its contents")
    model = _build(description, folder)
    if description.form == "recurrent":
        to_recurrent(model)
    _load_weights(model, weights, folder)
    return Artifact(description=description, model=model.eval(), fingerprint=data["fingerprint"])


def convert(source: Artifact, folder: Path) -> Artifact:
    """Writes the recurrent form of a trained model to `folder` and loads it from there."""
    if source.description.form == "recurrent":
        raise ArtifactError("this model is in recurrent form already")
    to_recurrent(source.model)
    description = Description(**{**vars(source.description), "form": "recurrent"})
    save(folder, source.model, description)
    return load(folder)


def _zeros(length: int, embedding: EmbeddingConfig) -> Tensor:
    """One sequence of token 0, or of zeros (1, L, d_input)."""
    if isinstance(embedding, NumberEmbeddingConfig):
        return torch.zeros(1, length, embedding.d_input)
    return torch.zeros(1, length, dtype=torch.long)


def _unique_tensors(model: Model) -> dict[str, Tensor]:
    """Tensors by name; of tied ones only the first."""
    seen: set[int] = set()
    unique = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor
    return unique


def _fingerprint(configuration: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """Of what is written, not of what it means today: options that came later leave it alone."""
    written = {name: value for name, value in configuration.items() if name != "fingerprint"}
    digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parse(data: dict[str, Any], folder: Path) -> Description:
    try:
        fields = {name: data[name] for name in ("form", "labels", "description", "training")}
        fields["model"] = model_config.from_json(data["model"])
        fields["tokenizer"] = None if data["tokenizer"] is None else tokenizers.from_json(data["tokenizer"], folder)
        if "chat_template" in data:
            fields["chat_template"] = ChatTemplate.from_json(data["chat_template"], folder)
        return validated(Description, fields)
    except KeyError as error:
        raise ArtifactError(f"{folder / CONFIG_FILE} lacks {error.args[0]!r}") from error
    except ValueError as error:
        raise ArtifactError(f"{folder / CONFIG_FILE}: {error}") from error


def _build(description: Description, folder: Path) -> Model:
    try:
        return blank_model(description.model)
    except ValueError as error:
        raise ArtifactError(f"{folder / CONFIG_FILE} describes no model: {error}") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} has no {WEIGHTS_FILE}") from error
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def _load_weights(model: Model, weights: dict[str, Tensor], folder: Path) -> None:
    own = _unique_tensors(model)
    if missing := sorted(own.keys() - weights.keys()):
        raise ArtifactError(f"{folder / WEIGHTS_FILE} lacks {missing[0]} ({len(missing)} tensors missing)")
    if extra := sorted(weights.keys() - own.keys()):
        raise ArtifactError(f"{folder / WEIGHTS_FILE} holds {extra[0]}, which the model does not have")
    for name, tensor in own.items():
        given = fitting(name, weights[name], tensor)
        tensor.data = given.to(torch.float32) if given.dtype == torch.float64 else given
