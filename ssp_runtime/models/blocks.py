"""A layer with its norm and residual connection."""

import torch
from torch import Tensor, nn

from ssp_runtime.mixers import build_layer
from ssp_runtime.mixers.base import Mixer, SequenceLayer
from ssp_runtime.mixers.dropout import FeatureDropout
from ssp_runtime.models.config import BlockConfig, NormConfig
from ssp_runtime.run import Run


def build_norm(config: NormConfig, width: int) -> nn.Module:
    return nn.LayerNorm(width, eps=config.eps) if config.kind == "layer" else nn.RMSNorm(width, eps=config.eps)


def build_block(config: BlockConfig, d_model: int) -> SequenceLayer:
    layer = build_layer(config.mixer, d_model)
    residual = Residual(config, d_model)
    return CausalBlock(residual, layer) if isinstance(layer, Mixer) else WholeBlock(residual, layer)


class Residual(nn.Module):
    """What a block does before and after its mixer. The residual stream is never narrower than float32."""

    def __init__(self, config: BlockConfig, d_model: int) -> None:
        super().__init__()
        self.norm = build_norm(config.norm, d_model)
        self.dropout = FeatureDropout(config.dropout)
        self._pre = config.norm_position == "pre"

    def before(self, x: Tensor) -> Tensor:
        x = x.to(next(self.norm.parameters()).dtype)
        return torch.as_tensor(self.norm(x)) if self._pre else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        total = x + self.dropout(y)
        return total if self._pre else torch.as_tensor(self.norm(total.to(y.dtype))).to(total.dtype)


class CausalBlock(Mixer):
    def __init__(self, residual: Residual, mixer: Mixer) -> None:
        super().__init__()
        self.residual, self.mixer = residual, mixer
        self.state_spec = mixer.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return self.residual.after(x, self.mixer.compute(self.residual.before(x), run))


class WholeBlock(SequenceLayer):
    """The block of a layer that needs the whole sequence."""

    def __init__(self, residual: Residual, layer: SequenceLayer) -> None:
        super().__init__()
        self.residual, self.mixer = residual, layer

    def encode(self, x_BLD: Tensor, lengths_B: Tensor | None = None, beside: dict[str, Tensor] | None = None) -> Tensor:
        return self.residual.after(x_BLD, self.mixer.encode(self.residual.before(x_BLD), lengths_B, beside))
