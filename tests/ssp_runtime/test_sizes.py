"""The sizes of the source thesis' models (its table 3): 3 inputs, 10 classes, 6 layers."""

import pytest

from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4 import S4Config
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
)
from ssp_runtime.models.model import Classifier

NORM = NormConfig(kind="layer")


def mamba(ssp: MixerConfig) -> ModelConfig:
    return _config(116, BlockConfig(mixer=MambaConfig(ssp=ssp), norm=NORM), final_norm=NORM)


def simple(ssp: MixerConfig) -> ModelConfig:
    return _config(170, BlockConfig(mixer=SimpleConfig(ssp=ssp), norm=NORM, norm_position="post"), final_norm=None)


def _config(d_model: int, block: BlockConfig, final_norm: NormConfig | None) -> ModelConfig:
    return ModelConfig(
        d_model=d_model,
        embedding=NumberEmbeddingConfig(d_input=3),
        layers=(block,) * 6,
        head=ClassificationHeadConfig(num_classes=10),
        final_norm=final_norm,
    )


@pytest.mark.parametrize(
    ("config", "model_size", "ssp_size"),
    [
        (mamba(S6Config(d_state=16)), 587_000, 95_000),
        (mamba(S4DConfig(d_state=16)), 564_000, 72_000),
        (mamba(S4Config(d_state=16)), 587_000, 95_000),
        (simple(S4DConfig(d_state=64)), 551_000, 200_000),
        (simple(S4Config(d_state=64)), 616_000, 266_000),
    ],
    ids=lambda value: value.architecture if isinstance(value, ModelConfig) else None,
)
def test_table_3(config: ModelConfig, model_size: int, ssp_size: int) -> None:
    sizes = {name: parameter.numel() for name, parameter in Classifier(config).named_parameters()}
    assert sum(sizes.values()) == pytest.approx(model_size, rel=0.01)
    assert sum(size for name, size in sizes.items() if ".ssp." in name) == pytest.approx(ssp_size, rel=0.05)
