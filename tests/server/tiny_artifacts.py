"""Tiny random models as folders that a server can load."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ssp_runtime.formats import artifact
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.mixers.bidirectional import BidirectionalMambaConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.models.architectures import model_config
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
    ValuesHeadConfig,
)
from ssp_runtime.models.model import Model, build_model
from ssp_runtime.tokenizers import ByteTokenizer, DNATokenizer

LABELS = ("coding", "promoter", "other")


def write_writer(folder: Path, poison: int | None = None) -> Artifact:
    """A model over bytes, its logits spread enough to make greedy texts varied. `poison` is a byte that turns states to
    NaN, for its embedding overflows; all else is as without."""
    scale = 1 if poison is None else 8
    config = ModelConfig(
        d_model=32,
        embedding=TokenEmbeddingConfig(vocab_size=256, scale=scale),
        layers=(BlockConfig(mixer=MambaConfig()), BlockConfig(mixer=MambaConfig(ssp=S4DConfig()))),
        head=LanguageModelHeadConfig(tied=False),
    )
    description = Description(model=config, tokenizer=ByteTokenizer(), description="writes")
    scales = {"backbone.embedding.weight": 50 / scale, "lm_head.weight": 4}
    return _write(folder, description, scales, poison)


def write_architecture(folder: Path, name: str) -> Artifact:
    """A model over bytes of a ready-made architecture; three layers, since some alternate."""
    config = model_config(name, d_model=16, num_layers=3, dropout=0.0, vocab_size=256)
    description = Description(model=config, tokenizer=ByteTokenizer())
    return _write(folder, description, {"backbone.embedding.weight": 50})


def write_reader(folder: Path) -> Artifact:
    """A bidirectional classifier of DNA."""
    config = ModelConfig(
        d_model=16,
        embedding=TokenEmbeddingConfig(vocab_size=5),
        layers=(BlockConfig(mixer=BidirectionalMambaConfig()),),
        head=ClassificationHeadConfig(num_classes=len(LABELS)),
    )
    description = Description(model=config, tokenizer=DNATokenizer(), labels=LABELS, description="reads")
    return _write(folder, description, {"backbone.embedding.weight": 50})


def write_forecaster(folder: Path) -> Artifact:
    """A model over vectors of three numbers that predicts two."""
    config = ModelConfig(
        d_model=12,
        embedding=NumberEmbeddingConfig(d_input=3),
        layers=(BlockConfig(mixer=MambaConfig()),),
        head=ValuesHeadConfig(d_output=2),
    )
    return _write(folder, Description(model=config, description="forecasts"), {})


def _write(folder: Path, description: Description, scales: Mapping[str, float], poison: int | None = None) -> Artifact:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Model = build_model(description.model)
    for name, scale in scales.items():
        model.get_parameter(name).data *= scale
    if poison is not None:
        model.get_parameter("backbone.embedding.weight").data[poison] = 3e38
    trained = folder.with_name(f"{folder.name}-trained")
    artifact.save(trained, model, description)
    return artifact.convert(artifact.load(trained), folder)
