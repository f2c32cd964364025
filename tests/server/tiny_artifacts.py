"""Two tiny random models as folders that a server can load."""

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
    TokenEmbeddingConfig,
)
from ssp_runtime.models.model import Model, build_model
from ssp_runtime.tokenizers import ByteTokenizer, DNATokenizer

LABELS = ("coding", "promoter", "other")


def write_writer(folder: Path) -> Artifact:
    """A model over bytes, its logits spread enough to make greedy texts varied."""
    config = ModelConfig(
        d_model=32,
        embedding=TokenEmbeddingConfig(vocab_size=256),
        layers=(BlockConfig(mixer=MambaConfig()), BlockConfig(mixer=MambaConfig(ssp=S4DConfig()))),
        head=LanguageModelHeadConfig(tied=False),
    )
    description = Description(model=config, tokenizer=ByteTokenizer(), description="writes")
    return _write(folder, description, {"backbone.embedding.weight": 50, "lm_head.weight": 4})


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


def _write(folder: Path, description: Description, scales: dict[str, int]) -> Artifact:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Model = build_model(description.model)
    for name, scale in scales.items():
        model.get_parameter(name).data *= scale
    trained = folder.with_name(f"{folder.name}-trained")
    artifact.save(trained, model, description)
    return artifact.convert(artifact.load(trained), folder)
